// What the READMEs show is what happens: scenario code runs, host descriptions boot the default guest, commands name verbs, options and
// scripts that there are, and printed output is what is printed. A block that is none of these must say which kind it is.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { nestbox } from "../vmm/cli/command-line.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const NOT_OURS = new Set(["node_modules", "dist", "build", ".git", ".cache"]);

function documents(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isDirectory()) return NOT_OURS.has(entry.name) ? [] : documents(join(folder, entry.name));
    return entry.name === "README.md" ? [join(folder, entry.name)] : [];
  });
}

interface Block {
  readonly file: string;
  /** "README.md:30". */
  readonly place: string;
  /** "" for output and drawings, "indented" without a fence. */
  readonly language: string;
  readonly text: string;
}

/** Fenced blocks, and those that stand four columns in after an empty line. */
function blocksOf(file: string): Block[] {
  const blocks: Block[] = [];
  const lines = readFileSync(file, "utf8").split("\n");
  const name = relative(root, file);
  for (let at = 0; at < lines.length; at++) {
    const fence = /^```(\w*)$/.exec(lines[at]!);
    const indented = /^ {4}\S/.test(lines[at]!) && (lines[at - 1] ?? "") === "";
    if (fence === null && !indented) continue;
    const from = fence === null ? at : at + 1;
    let end = from;
    while (end < lines.length && (fence === null ? /^( {4}|$)/.test(lines[end]!) : lines[end] !== "```")) end++;
    const text = lines.slice(from, end).join("\n");
    blocks.push({ file, place: `${name}:${at + 1}`, language: fence === null ? "indented" : fence[1]!, text });
    at = end;
  }
  return blocks;
}

const files = documents(root);
const blocks = files.flatMap(blocksOf);
const inLanguage = (language: string) =>
  blocks.filter((block) => block.language === language).map((block) => [block.place, block] as const);
const folder = mkdtempSync(join(tmpdir(), "nestbox-samples-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Busy machines start processes slowly. */
const PATIENCE = 120_000;

describe("code in the READMEs", { timeout: PATIENCE }, () => {
  it("is in a language that somebody looks after", () => {
    const looked = ["ts", "json", "sh", "yaml", "dockerfile", "", "indented"];
    expect(blocks.filter(({ language }) => !looked.includes(language)).map(({ place }) => place)).toEqual([]);
  });

  it.each(inLanguage("ts"))("%s is a scenario file that passes", (_place, { text }) => {
    expect(text).toContain('from "nestbox"');
    const file = join(root, "test", `readme-sample-${process.pid}.scenario.ts`);
    writeFileSync(file, text);
    try {
      const { status, output } = nestbox("scenario", file);
      expect(output).toMatch(/\n[1-9]\d* passed, 0 failed\n$/);
      expect(status).toBe(0);
    } finally {
      rmSync(file);
    }
  });

  it.each(inLanguage("json"))("%s is a host on which the default guest passes", (_place, { text }) => {
    const file = join(folder, "host.json");
    writeFileSync(file, text);
    const { status, output, errors } = nestbox("boot", "--host", file);
    expect(errors).toBe("");
    expect(output).toContain("\nresult     pass\n");
    expect(status).toBe(0);
  });
});

/** The words of "nestbox verb …" in a text, one array a command; comments, pipes and what follows are left out. */
function commandsIn(text: string): string[][] {
  const whole = text.replaceAll("\\\n", " ");
  return [...whole.matchAll(/(?:^|[\s`"$])nestbox ([a-z][^\n`|>#&;]*)/g)].map((match) => match[1]!.trim().split(/\s+/));
}

const helps = new Map<string, string>();
function helpOf(...verbs: string[]): string {
  const key = verbs.join(" ");
  const known = helps.get(key) ?? nestbox(...verbs, "--help").output;
  helps.set(key, known);
  return known;
}

/** What is wrong with a command, null if nothing: its verb, its options. */
function problemOf(words: readonly string[]): string | null {
  const [verb, second] = words;
  const listed = (help: string, name: string) => new RegExp(`^  ${name}(?![\\w-])`, "m").test(help);
  if (verb === undefined || !listed(helpOf(), verb)) return `there is no verb ${verb}`;
  const verbs = second !== undefined && /^[a-z]/.test(second) && listed(helpOf(verb), second) ? [verb, second] : [verb];
  const help = helpOf(...verbs);
  for (const word of words) {
    if (word === "--") break;
    const option = /^(--[a-z][a-z-]*)/.exec(word.replace(/^[[("]+/, ""))?.[1];
    if (option === undefined || option === "--help") continue;
    if (!new RegExp(`${option}\\b`).test(help)) return `${verbs.join(" ")} has no ${option}`;
  }
  return null;
}

describe("commands in the READMEs", { timeout: PATIENCE }, () => {
  const scripts = Object.keys(
    (JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> }).scripts,
  );

  it.each(files.map((file) => [relative(root, file), file] as const))(
    "%s: verbs, options and scripts are there",
    (_name, file) => {
      const text = readFileSync(file, "utf8");
      const inCode = blocksOf(file)
        .filter(({ language }) => language !== "ts")
        .map((block) => block.text);
      const spans = [...text.replaceAll(/^```[\s\S]*?^```/gm, "").matchAll(/`([^`\n]+)`/g)].map((match) => match[1]!);
      const code = [...inCode, ...spans.filter((span) => /^(npx )?nestbox [a-z]/.test(span))];
      const problems = code.flatMap(commandsIn).flatMap((words) => {
        const problem = problemOf(words);
        return problem === null ? [] : [`nestbox ${words.join(" ")}: ${problem}`];
      });
      // A table's row that begins with a command: the options named beside it are that command's, or boot's, which takes them all.
      for (const row of text.split("\n").filter((line) => line.startsWith("| `npx nestbox "))) {
        const [first] = commandsIn(row);
        for (const [, option] of row.matchAll(/`(--[a-z][a-z-]*)/g)) {
          const problem = problemOf([...first!, option!]);
          if (problem !== null && problemOf(["boot", option!]) !== null)
            problems.push(`${row.slice(0, 40)}…: ${problem}`);
        }
      }
      for (const part of [...inCode, ...spans]) {
        for (const [, script] of part.matchAll(/\bnpm run (?:--silent )?([a-z][a-z:-]*)/g)) {
          if (!scripts.includes(script!)) problems.push(`npm run ${script}: there is no such script`);
        }
        for (const [, shell] of part.matchAll(/(?:^|\s)\.\/([\w-]+\.sh)\b/g)) {
          if (!existsSync(join(dirname(file), shell!))) problems.push(`./${shell}: there is no such file`);
        }
      }
      expect(problems).toEqual([]);
    },
  );

  it("a command that is wrong would be found", () => {
    expect(problemOf(["boat"])).toMatch(/no verb boat/);
    expect(problemOf(["boot", "--asign", "x"])).toMatch(/boot has no --asign/);
    expect(problemOf(["trace", "export", "f", "--perfetti"])).toMatch(/trace export has no --perfetti/);
    expect(problemOf(["walk", "--trace", "f", "--why"])).toBe(null);
    expect(commandsIn("    npx nestbox boot \\\n  --cpus 2 | head   # two")).toEqual([["boot", "--cpus", "2"]]);
  });
});

describe("output in the READMEs", { timeout: PATIENCE }, () => {
  const outputs = inLanguage("").filter(([, { text }]) => /^(\$ |platform: )/.test(text));

  it("is shown of a boot and of a walk", () => {
    expect(outputs.length).toBeGreaterThanOrEqual(2);
  });

  // Counts and addresses move with every change of the model; what is said of them does not.
  const elided = (line: string) => line.replaceAll(/0x[0-9a-f]+|\d[\d,.]*\d|\d/g, "#");

  it.each(outputs)("%s is what is printed, but for numbers; a line that ends in … is cut there", (_place, { text }) => {
    const lines = text.split("\n");
    const command = lines[0]!.startsWith("$ npx nestbox ") ? lines.shift()!.slice("$ npx nestbox ".length) : "boot";
    const shown = lines.map(elided);
    // Without a command: what `npm start` prints, that is `nestbox boot`.
    const printed = nestbox(...command.split(" "))
      .output.trimEnd()
      .split("\n");
    const found = printed.map((line, index) => {
      const whole = elided(line);
      const beginning = shown[index]?.endsWith("…") === true ? shown[index]!.slice(0, -1) : whole;
      return beginning !== whole && whole.startsWith(beginning) ? `${beginning}…` : whole;
    });
    expect(found).toEqual(shown);
  });
});
