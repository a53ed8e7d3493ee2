// A story up to a moment, with what was put into it, as a scenario file: what was seen in the page, for a repository and its CI. What came of each DMA
// becomes an expectation, and so does what tables and caches said where it ends.

import type { ViommuKindName } from "../../viommu/kinds.ts";
import type { PlayedVerb } from "./play.ts";
import type { Story, Target } from "./verbs.ts";

/** What was told of a page where the file ends: system-physical addresses, null where the access is refused, where nothing is remembered. */
export interface Said {
  /** The host's name. */
  readonly device: string;
  readonly iova: bigint;
  readonly write: boolean;
  readonly now: bigint | null;
  readonly remembered: bigint | null;
}

/** Source of a scenario that does what `verbs` did on `kind`. */
export function printScenario(
  story: Pick<Story, "title" | "summary" | "assign" | "beats">,
  kind: ViommuKindName,
  verbs: readonly PlayedVerb[],
  said: readonly Said[] = [],
): string {
  const printer = new Printer();
  let beat = -1;
  for (const verb of verbs) {
    if (verb.beat !== beat) {
      beat = verb.beat;
      printer.line("");
      printer.line(`t.step(${JSON.stringify(story.beats[beat]!.title)});`);
    }
    if (verb.own === null) printer.line("// Put in by hand.");
    printer.verb(verb);
  }
  if (said.length > 0) printer.said(said);
  const assign = story.assign.map((text) => JSON.stringify(text)).join(", ");
  return `// ${story.title}: ${story.summary} Saved from the walk theatre.

import { scenario } from "nestbox";

export default scenario(${JSON.stringify(`${story.title} (${kind})`)}, (t) => {
  const vm = t.vm({ kind: ${JSON.stringify(kind)}, assign: [${assign}] });
${printer.lines.join("\n")}
});
`;
}

const hex = (value: bigint): string => `0x${value.toString(16)}n`;

/** Not state: of one text. */
class Printer {
  readonly lines: string[] = [];
  readonly #known = new Set<string>();

  line(text: string): void {
    this.lines.push(text === "" ? "" : `  ${text}`);
  }

  verb({ verb, outcome }: PlayedVerb): void {
    const result = outcome.ok === true ? "" : "!";
    switch (verb.do) {
      case "map": {
        const options = verb.write === false ? ", { write: false }" : "";
        const table = this.#table(verb.table);
        const to = this.#target(verb.to);
        this.line(`${table}.map(${hex(verb.iova)}, ${to}, 4096n${options});`);
        break;
      }
      case "unmap":
        this.line(`${this.#table(verb.table)}.unmap(${hex(verb.iova)}, 4096n);`);
        break;
      case "install": {
        const word = verb.what === "bypass" || verb.what === "blocked";
        const what = word ? JSON.stringify(verb.what) : this.#table(verb.what);
        this.line(`vm.device("${verb.device}").installContext(${what});`);
        break;
      }
      case "invalidate":
        this.line(`vm.iommu.invalidate({ stage1: ${this.#table(verb.table)}, iova: ${hex(verb.iova)} });`);
        this.line("vm.iommu.fence();");
        break;
      case "read":
      case "write": {
        const at = this.#target(verb.at);
        const call = verb.do === "read" ? `dmaRead(${at}, 4)` : `dmaWrite(${at}, new Uint8Array(4).fill(0x5a))`;
        if (outcome.problem !== undefined) break;
        const says = `the device's ${verb.do} ${outcome.ok === true ? "goes through" : "is refused"}`;
        this.line(`t.expect(${result}vm.device("${verb.device}").${call}.ok, ${JSON.stringify(says)});`);
        break;
      }
      case "start":
        this.line(
          `vm.device("${verb.device}").edu.start({ iova: ${hex(verb.iova)}, length: 4096, direction: "to-ram" });`,
        );
        break;
      case "wait":
        this.line(`t.advance(${verb.ns});`);
        break;
      case "unplug":
        this.line(`vm.unassign(vm.device("${verb.device}"));`);
        break;
      case "inject":
        this.line(`vm.host.inject(${JSON.stringify(verb.rules)});`);
        break;
      case "flip":
        this.#flip(verb.spa, verb.bit);
    }
  }

  said(all: readonly Said[]): void {
    const lines = `
// What tables and caches say here.
const says = (device: string, iova: bigint, write: boolean): string => {
  const asked = vm.host.askTranslation(device, iova, write);
  const text = (spa: bigint | null): string => (spa === null ? "nothing" : \`0x\${spa.toString(16)}\`);
  return asked === null ? "nothing" : \`tables: \${text(asked.now)}, cache: \${text(asked.remembered)}\`;
};`.split("\n");
    for (const line of lines) this.line(line);
    for (const { device, iova, write, now, remembered } of all) {
      const text = (spa: bigint | null): string => (spa === null ? "nothing" : `0x${spa.toString(16)}`);
      const wanted = `tables: ${text(now)}, cache: ${text(remembered)}`;
      const what = `${write ? "a write" : "a read"} at 0x${iova.toString(16)}`;
      this.line(
        `t.equal(says("${device}", ${hex(iova)}, ${write}), ${JSON.stringify(wanted)}, ${JSON.stringify(what)});`,
      );
    }
  }

  #flip(spa: bigint, bit: number): void {
    const place = `Number(${hex(spa)} >> 12n) as Frame, Number(${hex(spa)} & 0xff8n)`;
    if (!this.#known.has("memory")) {
      this.#known.add("memory");
      this.line("const memory = vm.host.memory;");
      this.line("type Frame = Parameters<typeof memory.load64>[0];");
    }
    this.line(`memory.load64(${place});`);
    const halves =
      bit < 32 ? `(memory.lo ^ ${2 ** bit}) >>> 0, memory.hi` : `memory.lo, (memory.hi ^ ${2 ** (bit - 32)}) >>> 0`;
    this.line(`memory.store64(${place}, ${halves});`);
  }

  /** A first stage's variable; the first use makes it. */
  #table(name: string): string {
    const variable = `table${name}`;
    if (!this.#known.has(variable)) {
      this.#known.add(variable);
      this.line(`const ${variable} = vm.stage1(undefined, { msiWindow: false });`);
    }
    return variable;
  }

  #target(target: Target): string {
    if (typeof target === "bigint") return hex(target);
    const variable = `page${target}`;
    if (!this.#known.has(variable)) {
      this.#known.add(variable);
      this.line(`const ${variable} = vm.ram.allocate();`);
    }
    return variable;
  }
}
