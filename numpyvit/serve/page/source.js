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
  const element = (opening, text) => `<${opening}>${text}</${opening.split(" ")[0]}>`;
  const data = JSON.stringify(held).replaceAll("<", "\\u003c");
  const scripts = [element('script type="application/json" id="held"', data)];
  let page = await read("./");
  for (const [tag, address] of page.matchAll(/<script src="([^"]+)".*\n/g)) {
    scripts.push(element("script", await read(address)));
    page = page.replace(tag, "");
  }
  const [sheet, address] = page.match(/<link rel="stylesheet" href="([^"]+)">/);
  const style = element("style", await read(address));
  const policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:";
  return page
    .replace(sheet, () => `<meta http-equiv="Content-Security-Policy" content="${policy}">\n${style}`)
    .replace("<body>", '<body class="saved">')
    .replace("</body>", () => `${scripts.join("\n")}\n</body>`);
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/html" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
