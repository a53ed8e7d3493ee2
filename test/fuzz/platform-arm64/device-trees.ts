// Device trees of random AArch64 machines, read back by a reader of its own (Devicetree Specification v0.4, chapters 2 and 5).
import { arm64DeviceTree } from "../../../vmm/platform/arm64-device-tree.ts";
import { VIOMMU_KINDS } from "../../../vmm/viommu/kinds.ts";
import type { Random } from "../../oracle/random.ts";
import { Disagreement, expectSame } from "./disagreement.ts";

interface Node {
  readonly path: string;
  readonly properties: Map<string, DataView>;
  readonly children: Node[];
}

const text = new TextDecoder();

/** The tree of a blob, every offset checked. */
function read(blob: Uint8Array): Node {
  const view = new DataView(blob.buffer, blob.byteOffset, blob.length);
  const [magic, total, structure, strings] = [0, 4, 8, 12].map((at) => view.getUint32(at));
  expectSame("magic", magic!, 0xd00dfeed);
  expectSame("size", total!, blob.length);
  const zeroTerminated = (at: number): string => text.decode(blob.subarray(at, blob.indexOf(0, at)));
  let at = structure!;
  const node = (parent: string): Node => {
    const name = zeroTerminated(at);
    at = (at + name.length + 4) & ~3;
    const it: Node = { path: name === "" ? "" : `${parent}/${name}`, properties: new Map(), children: [] };
    for (;;) {
      const token = view.getUint32(at);
      at += 4;
      if (token === 2) return it;
      if (token === 1) it.children.push(node(it.path));
      else if (token === 3) {
        const [length, key] = [view.getUint32(at), zeroTerminated(strings! + view.getUint32(at + 4))];
        if (it.properties.has(key)) throw new Disagreement(`${it.path} has ${key} twice`);
        if (it.children.length > 0) throw new Disagreement(`${it.path}: ${key} stands behind its children`);
        it.properties.set(key, new DataView(blob.buffer, blob.byteOffset + at + 8, length));
        at = (at + 8 + length + 3) & ~3;
      } else throw new Disagreement(`token ${token} in ${it.path}`);
    }
  };
  expectSame("first token", view.getUint32(at), 1);
  at += 4;
  const root = node("");
  expectSame("last token", view.getUint32(at), 9);
  return root;
}

const all = (node: Node): Node[] => [node, ...node.children.flatMap(all)];
const cells = (node: Node, property: string): number[] => {
  const value = node.properties.get(property);
  return value === undefined ? [] : Array.from({ length: value.byteLength / 4 }, (_, i) => value.getUint32(i * 4));
};

export function randomTree(random: Random): void {
  const kind = random.pick(Object.values(VIOMMU_KINDS));
  const cpus = 1 + random.below(8);
  const count = random.below(4);
  const ids = new Set(Array.from({ length: random.below(12) }, () => random.below(256)));
  const behind = Array.from({ length: random.below(4) }, (_, index) => ({
    routingId: 0x100 + 8 * (index >> 1), // two at a port
    behind: (index & 1) * 9,
  }));
  const behindPorts = count === 0 ? [] : behind.map((place) => ({ ...place, routingId: place.routingId & 0xff }));
  const functions = [...ids].filter((id) => !behindPorts.some(({ routingId }) => routingId === id));
  const viommus = Array.from({ length: count }, (_, index) => ({
    base: 0x301_0000 + index * 0x10_0000,
    requesterIds: functions.filter((id) => id % count === index),
    otherIds: index === 0,
    behindPorts: index === 0 ? behindPorts : [],
  }));
  const tree = read(
    arm64DeviceTree({
      kind,
      cpus,
      memoryBytes: 2 ** 21 * (1 + random.below(1024)),
      bootArguments: "x".repeat(random.below(2048)),
      initrd: random.chance(50) ? { start: 0x8400_0000, end: 0x8400_0000 + random.below(2 ** 24) } : null,
      viommus,
      ...{ uartSpi: 1, intxSpi: 4, viommuSpi: 8, viommuWires: 8, platformSpi: 224 },
      seed: new Uint8Array(32),
    }),
  );
  const nodes = all(tree);
  for (const node of nodes) {
    const names = node.children.map(({ path }) => path);
    expectSame(`children of ${node.path} by name`, new Set(names).size, names.length);
  }
  const phandles = nodes.flatMap((node) => cells(node, "phandle"));
  expectSame("phandles", new Set(phandles).size, phandles.length);
  const named = (path: string): Node[] => nodes.filter((node) => node.path.startsWith(path));
  for (const node of nodes) {
    for (const property of ["interrupt-parent", "msi-parent", "memory-region"]) {
      for (const phandle of cells(node, property)) {
        if (!phandles.includes(phandle))
          throw new Disagreement(`${node.path}: ${property} names ${phandle}, which is nobody`);
      }
    }
  }
  expectSame("CPUs", named("/cpus/cpu@").length, cpus);
  checkWindow(nodes, count === 0 ? 0 : functions.length + behindPorts.length);
  checkAddresses(tree, nodes);
}

/** The MSI window of each assigned function, named by it and naming it. */
function checkWindow(nodes: readonly Node[], assigned: number): void {
  const window = nodes.find(({ path }) => path.startsWith("/reserved-memory/"));
  const users = nodes.filter(({ properties }) => properties.has("memory-region"));
  expectSame("functions with a reservation", users.length, assigned);
  if (window === undefined) {
    expectSame("functions without a window", assigned, 0);
    return;
  }
  const regions = cells(window, "iommu-addresses");
  expectSame("cells of iommu-addresses", regions.length, assigned * 6);
  const reserved = regions.filter((_, index) => index % 6 === 0);
  for (const user of users) {
    expectSame(`reservation of ${user.path}`, cells(user, "memory-region")[0]!, cells(window, "phandle")[0]!);
    if (!reserved.includes(cells(user, "phandle")[0]!)) throw new Disagreement(`${user.path} is reserved nothing`);
  }
}

/** Registers of devices lie apart, and outside RAM; wires are one device's, INTx's aside. */
function checkAddresses(tree: Node, nodes: readonly Node[]): void {
  const soc = tree.children.find(({ path }) => path === "/soc")!;
  const ranges = soc.children.flatMap((node) => {
    const reg = cells(node, "reg");
    return Array.from({ length: reg.length / 4 }, (_, i) => ({
      from: reg[i * 4]! * 2 ** 32 + reg[i * 4 + 1]!,
      size: reg[i * 4 + 2]! * 2 ** 32 + reg[i * 4 + 3]!,
      path: node.path,
    }));
  });
  ranges.sort((a, b) => a.from - b.from);
  ranges.forEach(({ from, size, path }, index) => {
    const next = ranges[index + 1];
    if (from + size > 0x8000_0000) throw new Disagreement(`${path} reaches into RAM`);
    if (next !== undefined && from + size > next.from) throw new Disagreement(`${path} overlaps ${next.path}`);
  });
  const wires = nodes
    .filter(({ path }) => path.startsWith("/soc/"))
    .flatMap((node) => {
      const all = cells(node, "interrupts");
      return Array.from({ length: all.length / 3 }, (_, i) => all[i * 3 + 1]!);
    });
  expectSame("wires", new Set(wires).size, wires.length);
}
