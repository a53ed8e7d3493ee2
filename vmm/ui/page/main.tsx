// Where the page begins: what is beside it, then the app.

import { render } from "preact";
import { App, type Programme } from "./app.tsx";

async function programmeBeside(): Promise<Programme> {
  try {
    const reply = await fetch("programme.json");
    if (reply.ok) return (await reply.json()) as Programme;
  } catch {
    // Nothing is beside it: the stories are in it.
  }
  return { images: [], scenarios: [] };
}

const root = document.getElementById("page")!;
const programme = await programmeBeside();
root.replaceChildren();
render(<App programme={programme} />, root);
