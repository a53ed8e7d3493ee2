/**
 * Every fault cause with every type of request, on the hardware model: result, record (CAUSE, PID, PV, PRIV, TTYP, DID, iotval, iotval2; §4.2), the answer to
 * ATS requests (§3.6), and what DTF silences. The table and what it expects come from the specification: `test/oracle/riscv-iommu/cases`.
 */
import { describe, expect, it } from "vitest";
import { expectedOf, requestsOf } from "../../../../oracle/riscv-iommu/cases/expected.ts";
import { FAULT_CASES } from "../../../../oracle/riscv-iommu/cases/fault-cases.ts";
import { MISCONFIGURED_CONTEXTS } from "../../../../oracle/riscv-iommu/cases/misconfigured-contexts.ts";
import {
  bothStagesScene,
  CONTEXT,
  DEVICE,
  FIRST,
  firstStageScene,
  IOVA,
  leaf,
  PTE,
  request,
  type Scene,
  TC,
} from "../../../../oracle/riscv-iommu/cases/scene.ts";
import { HardwareSubject, hardware, REGISTER } from "../../../../oracle/riscv-iommu/hardware-adapter.ts";

function ask(scene: Scene, change: Parameters<typeof request>[0] = {}) {
  const subject = hardware(scene.implementation, scene.ddtp, scene.memory, "none")!;
  return { ...subject.request(request(change), 0), subject };
}

describe("the RISC-V IOMMU reports", () => {
  for (const fault of FAULT_CASES) {
    for (const asked of requestsOf(fault)) {
      it(`${fault.name}; ${asked.name}`, () => {
        for (const dtf of [false, true]) {
          const scene = fault.scene();
          if (dtf) scene.change(CONTEXT, (tc) => tc | TC.DTF);
          const observed = ask(scene, asked.request);
          const expected = expectedOf(fault, asked.request, dtf);
          expect(observed.result).toMatchObject(expected.result);
          expect(observed.records.length).toBe(expected.record === null ? 0 : 1);
          if (expected.record === null) continue;
          expect(observed.records[0]).toMatchObject(expected.record);
          expect(expected.causes).toContain(observed.records[0]!.cause);
        }
      });
    }
  }
});

describe("the RISC-V IOMMU takes a context for misconfigured (259, §3.1.4)", () => {
  for (const { name, scene } of MISCONFIGURED_CONTEXTS) {
    it(name, () => {
      expect(ask(scene())).toMatchObject({
        result: { kind: "aborted" },
        records: [{ cause: 259, ttyp: 2, did: DEVICE, iotval: IOVA, iotval2: 0n }],
      });
    });
  }
});

describe("the RISC-V IOMMU updates A and D (§3.4)", () => {
  it("A for a read, A and D for a write, in the leaf only", () => {
    for (const [access, flags] of [
      ["read", PTE.A],
      ["write", PTE.A | PTE.D],
    ] as const) {
      const scene = firstStageScene().change(CONTEXT, (tc) => tc | TC.SADE);
      const before = leaf(0x70_0000n, PTE.V | PTE.R | PTE.W | PTE.U);
      scene.put(FIRST.leaf, before);
      const { result, subject, storedPages } = ask(scene, { access });
      expect(result).toEqual({ kind: "translated", address: 0x70_0abcn });
      expect(subject.word(FIRST.leaf)).toBe(before | flags);
      expect(storedPages).toEqual([FIRST.last >> 12n]);
    }
  });

  it("not where the store is refused: an access fault of the original access", () => {
    const scene = firstStageScene().change(CONTEXT, (tc) => tc | TC.SADE);
    scene.change(FIRST.leaf, (pte) => pte & ~PTE.A).inject(FIRST.leaf, "read-only");
    expect(ask(scene, { access: "write" })).toMatchObject({ result: { kind: "aborted" }, records: [{ cause: 7 }] });
  });
});

// Found by the fuzzer of translations (seeds 8, 52, 55 and 423 of its first run) and made small by hand.
describe("the RISC-V IOMMU answers an ATS request without No-Write (§3.6, §3.4)", () => {
  const ats = { type: "ats", iova: IOVA & ~0xfffn } as const;
  const updating = (scene: Scene) => scene.change(CONTEXT, (tc) => tc | TC.SADE | TC.GADE);

  it("marking no page that the requester may not read", () => {
    for (const flags of [PTE.V | PTE.R | PTE.W, PTE.V | PTE.X | PTE.U]) {
      const scene = updating(firstStageScene()).put(FIRST.leaf, leaf(0x70_0000n, flags));
      const { result, storedPages } = ask(scene, ats);
      expect(result).toMatchObject({ kind: "ats", completion: { status: "success", r: false, w: false } });
      expect(storedPages).toEqual([]);
    }
  });

  it("marking no second-stage page dirty where the first stage gives no W", () => {
    const scene = updating(bothStagesScene()).change(FIRST.leaf, (pte) => pte & ~PTE.W);
    scene.change(0x30_5000n, (pte) => pte & ~PTE.D);
    const { result, subject } = ask(scene, ats);
    expect(result).toMatchObject({ kind: "ats", completion: { status: "success", r: true, w: false } });
    expect(subject.word(0x30_5000n) & PTE.D).toBe(0n);
  });

  it("with Success where the first stage refuses, whatever the second stage would run into", () => {
    const scene = bothStagesScene().change(FIRST.leaf, (pte) => pte & ~PTE.U);
    scene.memory.pages.delete(0x305n);
    expect(ask(scene, ats)).toMatchObject({
      result: { kind: "ats", completion: { status: "success", r: false, w: false } },
      records: [],
    });
  });
});

describe("the RISC-V IOMMU's own messages", () => {
  /** Vector 0 for every cause, unmasked, to `address`; fault-queue interrupts on. */
  function interrupting(address: bigint): HardwareSubject {
    const { implementation, ddtp, memory } = firstStageScene().put(FIRST.leaf, 0n);
    const subject = new HardwareSubject(implementation, ddtp, memory, "none");
    subject.write(768, 8, address);
    subject.write(776, 4, 0x1234_5678n);
    subject.write(780, 4, 0n);
    subject.write(REGISTER.fqcsr, 4, 0b11n);
    return subject;
  }

  it("that nobody takes are recorded as 273: TTYP 0, no ids, iotval the message address (§6.29, §4.2)", () => {
    const { records } = interrupting(0x666_0000n).request(request(), 0);
    expect(records).toEqual([
      expect.objectContaining({ cause: 13 }),
      { cause: 273, pid: 0n, pv: false, priv: false, ttyp: 0, did: 0n, iotval: 0x666_0000n, iotval2: 0n },
    ]);
  });

  it("are four bytes at their address", () => {
    const subject = interrupting(FIRST.root);
    expect(subject.request(request(), 0).records).toMatchObject([{ cause: 13 }]);
    expect(subject.word(FIRST.root)).toBe(0x1234_5678n);
  });
});
