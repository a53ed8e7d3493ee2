// A device tree from which a node was cut must be one still: dtc reads it back.

import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { withoutNode } from "../../guest-fixtures/debian/without-node.ts";
import { encodeDeviceTree } from "../../vmm/platform/flattened-device-tree.ts";

const hasDtc = spawnSync("dtc", ["--version"]).status === 0;
if (!hasDtc) console.warn("SKIPPED: dtc (package device-tree-compiler) is not installed");

describe.runIf(hasDtc)("a device tree without a node", () => {
  const tree = encodeDeviceTree({
    name: "",
    properties: { "#address-cells": [1], "#size-cells": [1] },
    children: [
      { name: "first", properties: { a: [1] } },
      { name: "gone", properties: { b: "text" }, children: [{ name: "below", properties: { c: true } }] },
      { name: "last", children: [{ name: "going", properties: { d: [4] } }] },
    ],
  });
  const read = (blob: Uint8Array): string => {
    const { status, stdout, stderr } = spawnSync("dtc", ["-I", "dtb", "-O", "dts"], { input: blob });
    expect([status, stderr.toString()]).toEqual([0, ""]);
    return stdout.toString().replace(/\s+/g, " ");
  };
  const ROOT = "#address-cells = <0x01>; #size-cells = <0x01>;";

  it("keeps all that is not below it", () => {
    expect(read(withoutNode(tree, "gone"))).toBe(
      `/dts-v1/; / { ${ROOT} first { a = <0x01>; }; last { going { d = <0x04>; }; }; }; `,
    );
  });

  it("is the same tree where there is no such node", () => {
    expect(read(withoutNode(tree, "missing"))).toBe(read(tree));
  });

  it("refuses what is no tree", () => {
    expect(() => withoutNode(tree.slice(0, 100), "gone")).toThrow(RangeError);
    const garbled = tree.slice();
    garbled[new DataView(tree.buffer).getUint32(8) + 3] = 7;
    expect(() => withoutNode(garbled, "gone")).toThrow(RangeError);
  });
});
