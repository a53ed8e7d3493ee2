// `nestbox fuzz image-names`: guest images with hostile names in every place where a name may stand. Code out of an image must never
// run: if it does, it sets a canary in this process. Each image goes through the product as it is, and through every set of its layers
// that leaves at least one standing (image-names/layers.ts).
//
// Beside the canary: nothing throws; a refusal is one line of printable text; no name outside plain ASCII words gets past the first layer.

import type { Count, Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { LAYERS, prepareComponent, type TranspiledComponent } from "../../vmm/vcpu/component/prepare.ts";
import { ScriptedMachine } from "../vmm/vcpu/component/scripted-machine.ts";
import { generator } from "../vmm/vcpu/riscv64/reference/integer.ts";
import { type LayerName, linkableThrough, STANDING } from "./image-names/layers.ts";
import { canarySang, hostileName } from "./image-names/payloads.ts";
import { DEFAULT_NAMES, image, type Names, POSITIONS } from "./image-names/positions.ts";
import { TRAPPED, transpileAfresh } from "./image-names/transpiler.ts";

/** Printable, without line terminators or anything that moves a cursor or turns the writing direction. */
const ONE_LINE = /^[^\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]{1,1600}$/u;
/** A bound on what is plain, wider than the product's grammar and written without it. */
const PLAIN_BYTES = new Set([...new TextEncoder().encode("$-./:#@|~_")]);
const isPlain = (byte: number) =>
  (byte >= 48 && byte <= 57) || (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122) || PLAIN_BYTES.has(byte);

const CORE_POSITIONS = POSITIONS.filter((position) => position.startsWith("core "));

export interface HostileImage {
  readonly names: Names;
  readonly bytes: Uint8Array;
}

/** Image `seed`: one hostile name, sometimes up to three; sometimes a few damaged bytes. */
export function hostileImage(seed: number): HostileImage {
  const random = generator(seed);
  const names: Record<string, readonly number[]> = {};
  for (let left = random() % 4 === 0 ? 3 : 1; left > 0; left--) {
    // Half of them where jco takes any name.
    const places = random() % 2 === 0 ? POSITIONS : CORE_POSITIONS;
    const position = places[random() % places.length]!;
    names[position] = hostileName(random, DEFAULT_NAMES[position] ?? "name");
  }
  const bytes = image(names);
  if (random() % 4 === 0) {
    for (let left = 1 + (random() % 4); left > 0; left--) bytes[random() % bytes.length] = random() & 0xff;
  }
  return { names, bytes };
}

/** Takes one image through every set of layers; what went wrong, or null. */
export async function findingIn({ names, bytes }: HostileImage, count: Count = () => {}): Promise<string | null> {
  const problem = (await throughProduct(bytes, count)) ?? namePastTheCheck(names);
  if (problem !== null) return problem;
  const transpiled = await transpileAfresh(bytes);
  if ("error" in transpiled) {
    count(TRAPPED.test(transpiled.error) ? "traps of an unprotected jco" : "images refused by jco, too", 1);
    return null;
  }
  count("images with code to hold", 1);
  for (const standing of STANDING) {
    if (await runsCode(standing, bytes, transpiled)) {
      return `with the layers ${standing.join(", ")} standing, code of the image ran`;
    }
  }
  return null;
}

async function throughProduct(bytes: Uint8Array, count: Count): Promise<string | null> {
  const prepared = await prepareComponent(bytes);
  count("error" in prepared ? "images refused" : "images booted", 1);
  if (!("error" in prepared)) {
    new ScriptedMachine().boot(prepared);
    return canarySang() ? "code of the image ran" : null;
  }
  const { error } = prepared;
  if (TRAPPED.test(error)) return `an image that its check let through traps jco: ${error}`;
  return ONE_LINE.test(error) ? null : `refused in words unfit for a terminal: ${JSON.stringify(error)}`;
}

/** A name with more than plain words in it that the first layer would show jco. */
function namePastTheCheck(names: Names): string | null {
  const plain = LAYERS.image(image(names));
  if (typeof plain === "string") return null;
  const shown = Buffer.from(plain);
  for (const [position, name] of Object.entries(names)) {
    const bytes = Buffer.from(name);
    // Zeros are what a custom section that was made harmless is full of.
    const harmless = name.every((byte) => byte === 0 || isPlain(byte));
    if (name.length < 3 || harmless || !shown.includes(bytes)) continue;
    // Short names may stand there by chance: "run" and the zero that says that it is a function.
    if (!Buffer.from(image({ ...names, [position]: name.map(() => 0x78) })).includes(bytes)) {
      return `a name got past the check of the image: ${position}`;
    }
  }
  return null;
}

/** Boots what gets through the standing layers; whether the canary sang. */
export async function runsCode(
  standing: readonly LayerName[],
  bytes: Uint8Array,
  transpiled: TranspiledComponent,
): Promise<boolean> {
  let code = transpiled;
  if (standing.includes("image")) {
    const plain = LAYERS.image(bytes);
    if (typeof plain === "string") return canarySang();
    const again = await transpileAfresh(plain);
    if ("error" in again) return canarySang();
    code = again;
  }
  const prepared = linkableThrough(standing, code);
  if (!("error" in prepared)) {
    try {
      new ScriptedMachine().boot(prepared);
    } catch (error) {
      // Evaluated code may throw anything; carried-out plans may not.
      if (standing.includes("link")) throw error;
    }
  }
  // Timers and imports that the code may have left behind.
  await new Promise((resolve) => setTimeout(resolve));
  return canarySang();
}

export const fuzzer: Fuzzer = {
  about: "hostile names in guest images: no name becomes code, whichever layer is left out",
  round: async (seed, count) => {
    const hostile = hostileImage(seed);
    const problem = await findingIn(hostile, count);
    if (problem === null) return null;
    const names = Object.entries(hostile.names).map(
      ([position, name]) => `  ${position}: ${JSON.stringify(new TextDecoder().decode(Uint8Array.from(name)))}`,
    );
    return { problem: [problem, ...names].join("\n") };
  },
};
