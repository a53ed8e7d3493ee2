// Takes a kind of IOMMU out of a tree, by the rule of vmm/viommu/README.md ("Without a kind"):
//
//   1. folders and files go whose name has the kind's as a word ("smmuv3", "smmuv3-qemu", "smmuv3-nesting.ts", "nested-dma-smmuv3.test.ts")
//   2. built-in hosts (host/examples) whose IOMMUs are all of the kind go
//   3. tests, scenarios and fuzzers that import something that is gone go with it
//   4. of every other file the lines go that import or re-export something that is gone, and the lines that use a name so imported: table lines
//
// What does not build after that knew the kind where it should not. Prints what it took. Usage: node remove-kind.mjs KIND TREE

import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";

const [kind, tree] = process.argv.slice(2);
if (kind === undefined || tree === undefined || !/^[a-z0-9]+$/.test(kind)) {
  console.error("usage: node remove-kind.mjs KIND TREE");
  process.exit(2);
}
const root = resolve(tree);
const ROOMS = ["host", "vmm", "guest-fixtures", "test"];
const NAMED = new RegExp(`(^|[^a-z0-9])${kind}([^a-z0-9]|$)`);
const SOURCE = /\.(ts|mjs|mts)$/;
const TEST = /\.(test|scenario)\.ts$|[/\\]test[/\\]fuzz[/\\].*\.ts$/;

const gone = new Set();
const taken = { folders: [], files: [], tests: [], lines: [] };

function take(path, list) {
  for (const file of filesBelow(path)) gone.add(file);
  rmSync(path, { recursive: true });
  list.push(relative(root, path).split(sep).join("/"));
}

function filesBelow(path) {
  if (!existsSync(path)) return [];
  const entries = readdirSync(dirname(path), { withFileTypes: true });
  const own = entries.find((entry) => join(dirname(path), entry.name) === path);
  if (own === undefined || !own.isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => filesBelow(join(path, name)));
}

/** Folders and files named after the kind, topmost first. */
function takeNamed(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (NAMED.test(entry.name)) take(path, taken.folders);
      else if (entry.name !== "node_modules" && entry.name !== "build") takeNamed(path);
    } else if (NAMED.test(entry.name)) take(path, taken.files);
  }
}

function takeHosts() {
  const folder = join(root, "host/examples");
  for (const name of readdirSync(folder)) {
    const { iommus = [] } = JSON.parse(readFileSync(join(folder, name), "utf8"));
    if (iommus.length > 0 && iommus.every((iommu) => iommu.kind === kind)) take(join(folder, name), taken.files);
  }
}

/** Import and re-export statements: where they stand, what they name, what they lead to. */
const STATEMENT = /^(import|export)\b(?:\s+type\b)?([^;"']*?)(?:\bfrom\s*)?["']([^"']+)["'][^;\n]*;[^\n]*\n/gm;

function leadsToGone(file, specifier) {
  if (!specifier.startsWith(".")) return false;
  const target = resolve(dirname(file), specifier);
  // AssemblyScript leaves the extension out.
  return gone.has(target) || gone.has(`${target}.ts`);
}

function namesOf(clause) {
  const list = clause.replace(/[{}]/g, ",").split(",");
  return list
    .map((item) => item.trim().replace(/^type\s+/, ""))
    .filter((item) => item !== "" && item !== "*")
    .map((item) =>
      item
        .split(/\s+as\s+/)
        .at(-1)
        .trim(),
    );
}

/** A suite that another test runs as well. */
const RUN_AGAIN = /^ *await import\("([^"]+)"\);\n/gm;

/** The file without its lines of the kind; null if it has none. */
function withoutLines(file, text) {
  const names = [];
  const alone = text.replace(RUN_AGAIN, (line, specifier) => (leadsToGone(file, specifier) ? "" : line));
  let rest = alone.replace(STATEMENT, (statement, keyword, clause, specifier) => {
    if (!leadsToGone(file, specifier)) return statement;
    if (keyword === "import") names.push(...namesOf(clause));
    return "";
  });
  if (rest === text) return null;
  if (names.length > 0) {
    const used = new RegExp(`(^|[^\\w$.])(${names.map((name) => name.replace(/\$/g, "\\$")).join("|")})([^\\w$]|$)`);
    rest = rest
      .split("\n")
      .filter((line) => !used.test(line) || /^\s*(\/\/|\*|\/\*)/.test(line))
      .join("\n");
  }
  return rest;
}

for (const room of ROOMS) takeNamed(join(root, room));
takeHosts();
// Tests go with what they import, and what imports them in turn, until nothing changes.
for (let before = -1; before !== gone.size; ) {
  before = gone.size;
  for (const file of ROOMS.flatMap((room) => filesBelow(join(root, room)))) {
    if (!TEST.test(file) || file.includes("node_modules")) continue;
    const text = readFileSync(file, "utf8");
    if ([...text.matchAll(STATEMENT)].some(([, , , specifier]) => leadsToGone(file, specifier)))
      take(file, taken.tests);
  }
}
for (const file of ROOMS.flatMap((room) => filesBelow(join(root, room)))) {
  if (!SOURCE.test(file) || file.includes("node_modules")) continue;
  const text = readFileSync(file, "utf8");
  const rest = withoutLines(file, text);
  if (rest === null) continue;
  writeFileSync(file, rest);
  const count = text.split("\n").length - rest.split("\n").length;
  taken.lines.push(`${relative(root, file)}: ${count} lines`);
}

for (const [what, list] of Object.entries(taken)) {
  console.log(`${what}: ${list.length}`);
  for (const item of list) console.log(`    ${item}`);
}
if (taken.folders.length === 0) {
  console.error(`no folder is named ${kind}: there is no such kind here`);
  process.exit(1);
}
