const root = document.documentElement, button = document.getElementById("theme");
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const name = () => { button.textContent = dark ? "Light colors" : "Dark colors"; };
button.addEventListener("click", () => { dark = !dark; root.style.colorScheme = dark ? "dark" : "light"; name(); });
button.hidden = false;
name();
