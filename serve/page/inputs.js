// What a visitor gives: an image (chosen, dropped, pasted, taken with a camera) or a text.

import { bytes, el } from "./dom.js";
import { Trouble } from "./server.js";

// The formats that the server reads. Named, so that a phone turns its own into one of them.
const FORMATS = "image/png,image/jpeg,image/webp,image/bmp,image/gif";
const TINY = 128; // pixels; smaller images are enlarged without blurring them

// {element, take}: `give(blob)` hears of each image, `refuse(trouble)` of what is none or too large for `limits`, which
// may change.
export function imageInput(limits, give, refuse) {
  const preview = el("img", { class: "preview", alt: "", hidden: true });
  const verb = el("b", {}, "Choose an image");
  const words = el("span", { class: "invitation" }, verb, " or drop it anywhere here, or paste it");
  const name = el("p", { class: "name quiet", id: "image-name" });
  let shown = null;

  function sayLimit() {
    if (!shown) name.textContent = `At most ${bytes(limits.max_body_bytes)}.`;
  }

  function take(files) {
    const file = [...files].find((each) => each.type.startsWith("image/")) ?? files[0];
    if (!file) return;
    if (!file.type.startsWith("image/")) {
      refuse(new Trouble(`${file.name || "what was dropped"} is no image`, "PNG, JPEG, WebP, BMP and GIF are read"));
    } else if (file.size > limits.max_body_bytes) {
      const most = bytes(limits.max_body_bytes);
      refuse(new Trouble(`the image is ${bytes(file.size)}, and the server takes ${most}`, "make it smaller, or save it as JPEG"));
    } else {
      show(file, files.length);
      give(file);
    }
  }

  function show(file, given) {
    if (shown) URL.revokeObjectURL(shown);
    shown = URL.createObjectURL(file);
    const called = file.name || "the pasted image";
    const others = given > 1 ? `, the first of ${given}` : "";
    preview.onload = () => {
      preview.classList.toggle("tiny", Math.max(preview.naturalWidth, preview.naturalHeight) <= TINY);
      name.textContent = `${called}${others}: ${preview.naturalWidth} × ${preview.naturalHeight} pixels, ${bytes(file.size)}`;
    };
    preview.onerror = () => {
      preview.hidden = true;
      name.textContent = `${called}${others}: this browser cannot show it`;
    };
    preview.alt = `The image to classify: ${called}`;
    preview.src = shown;
    preview.hidden = false;
    verb.textContent = "Choose another image";
  }

  const chosen = (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  };
  const input = (id, more) => el("input", { type: "file", id, accept: FORMATS, class: "unseen", change: chosen, ...more });
  const element = el("div", { class: "image" },
    input("image", { "aria-describedby": "image-name" }),
    el("label", { for: "image", class: "drop" }, preview, words),
    name,
    el("div", { class: "camera" },
      input("camera", { capture: "environment" }),
      el("label", { for: "camera", class: "button" }, "Take a photo"),
    ),
  );
  return { element, take, sayLimit };
}

// {element}: `give(text)` hears of each text that is sent.
export function textInput(give) {
  const area = el("textarea", { id: "text", rows: 5, "aria-describedby": "text-hint" });
  const send = (event) => {
    event?.preventDefault();
    if (area.value.trim()) give(area.value);
    else area.focus();
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event);
  });
  const element = el("form", { class: "text", submit: send },
    el("label", { for: "text" }, "Text"),
    area,
    el("div", { class: "row" },
      el("button", { type: "submit" }, "Classify"),
      el("span", { class: "quiet", id: "text-hint" }, "or Ctrl + Enter"),
    ),
  );
  return { element };
}

// Images that are dropped or pasted anywhere on the page go to `take`.
export function catchImages(take) {
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, change === null ? 0 : depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  addEventListener("dragenter", (event) => carries(event) && mark(1));
  addEventListener("dragleave", (event) => carries(event) && mark(-1));
  addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    mark(null);
    if (!carries(event)) return;
    event.preventDefault(); // else the browser would open the file in the page's stead
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    if (files.length) {
      event.preventDefault();
      take(files);
    }
  });
}
