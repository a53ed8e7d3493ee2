// A link names all that is on screen, and whatever somebody writes into one does nothing worse than open the page.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addressText, type PageAddress, parseAddress } from "../../../vmm/ui/page/address.ts";
import { DEFAULT_KIND } from "../../../vmm/viommu/kinds.ts";

const kind = DEFAULT_KIND;

describe("an address of the page", () => {
  it("is read back as it was written", () => {
    const addresses: PageAddress[] = [
      { show: { what: "story", name: "bypass-to-nested" }, seed: 0, panes: [{ kind, at: 17 }], inserts: [] },
      {
        show: { what: "image", name: "nested-dma" },
        seed: 3,
        panes: [
          { kind, at: 0 },
          { kind, at: 9 },
        ],
        inserts: [],
      },
      { show: { what: "scenario", name: "stale.js", index: 1 }, seed: 7, panes: [{ kind, at: 5 }], inserts: [] },
      {
        ...{ show: { what: "story", name: "a-fault-comes-home" }, seed: 0, panes: [{ kind, at: 2 }] },
        inserts: [
          { after: 3, verb: { do: "flip", spa: 0x8058a08028n, bit: 63 } },
          { after: 4, verb: { do: "write", device: "00:02.0", at: 0xffff_ffff_ffff_f000n } },
        ],
      },
    ];
    for (const address of addresses) expect(parseAddress(addressText(address))).toEqual(address);
  });

  it.each([
    "",
    "#",
    "#nothing=1",
    "#story=../../etc/passwd",
    "#story=<script>",
    "#scenario=https://elsewhere.example/x.js",
    "#image=%00",
  ])("that is none (%s) opens nothing", (hash) => {
    expect(parseAddress(hash)).toBeNull();
  });

  it("keeps what fits and leaves out what does not", () => {
    expect(
      parseAddress(
        "#story=x&kind=toString,nonsense&at=-4,1e9&seed=abc&put=1:flip:0x10:64&put=x&put=2:read:0x4000:00:02.0",
      ),
    ).toEqual({
      ...{ show: { what: "story", name: "x" }, seed: 0, panes: [{ kind, at: -1 }] },
      inserts: [{ after: 2, verb: { do: "read", device: "00:02.0", at: 0x4000n } }],
    });
    const many = parseAddress(`#story=x${"&put=1:flip:0x10:1".repeat(1000)}`)!;
    expect(many.inserts).toHaveLength(32);
  });

  it("never throws", () => {
    fc.assert(fc.property(fc.string(), (text) => void parseAddress(`#story=${text}`)));
    fc.assert(fc.property(fc.string(), (text) => void parseAddress(text)));
  });
});
