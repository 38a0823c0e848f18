"use strict";
// Where answers come from: the server, or what a saved page holds. And saving one.

class Server {
  async info() {
    return this.answer(await fetch("info"));
  }

  predict(image, top) {
    return this.ask(`predict?image=true&top=${top}`, image);
  }

  attention(image, key) {
    return this.ask(key === "rollout" ? "attention?rollout=true" : `attention?layer=${key}`, image);
  }

  async ask(address, image) {
    const type = image.type.startsWith("image/") ? image.type : "image/unknown";
    return this.answer(await fetch(address, { method: "POST", body: image, headers: { "Content-Type": type } }));
  }

  async answer(response) {
    const text = await response.text();
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      throw new Error(`the server answered ${response.status}`);
    }
    if (!response.ok) throw new Error(value.error);
    return value;
  }
}

class Saved {
  constructor(held) {
    this.held = held;
  }

  async info() {
    return { ...this.held.info, watched: false };
  }

  async predict() {
    return this.held.result;
  }

  async attention(image, key) {
    return this.held.attention[key];
  }
}

// This page with its styles, its scripts and `held` inside, as text.
async function selfContained(held) {
  const read = async (address) => (await fetch(address)).text();
  const page = new DOMParser().parseFromString(await read("./"), "text/html");
  const policy = page.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:";
  page.head.prepend(policy);
  const sheet = page.querySelector("link[rel=stylesheet]");
  const style = page.createElement("style");
  style.textContent = await read(sheet.getAttribute("href"));
  sheet.replaceWith(style);
  const data = page.createElement("script");
  data.type = "application/json";
  data.id = "held";
  data.textContent = JSON.stringify(held).replaceAll("<", "\\u003c");
  page.body.append(data);
  for (const script of [...page.querySelectorAll("script[src]")]) {
    const inline = page.createElement("script");
    inline.textContent = await read(script.getAttribute("src"));
    script.remove();
    page.body.append(inline);
  }
  page.title = `${held.info.model}, saved`;
  page.body.classList.add("saved");
  return `<!doctype html>\n${page.documentElement.outerHTML}\n`;
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/html" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
