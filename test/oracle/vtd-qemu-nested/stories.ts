/**
 * What QEMU's unit is given, what the specification has become of it, and where QEMU leaves that. `refused` is what a host's intel-iommu driver answers to it
 * (drivers/iommu/intel/pasid.c): the model gives the same. Where an attach is refused the core puts the device back on what it was on (drivers/iommu/iommu.c,
 * __iommu_group_set_domain_internal), the parent.
 */

import { MODE_ATS, MODE_PRI } from "../../../host/devices/edu/registers.ts";
import { EINVAL, ENOMEM } from "../../../host/uapi/errno.ts";
import { AFTER, type Fields, IOVA, type MachineOptions, type NestedMachine, type Writing } from "./machine.ts";

/** What became of a story: where edu's last write arrived, what the guest's unit recorded, whether the checker spoke, what the host refused. */
export interface Seen {
  readonly arrived: "before" | "after" | "untranslated" | "nowhere";
  readonly recorded: boolean;
  readonly stale: boolean;
  readonly refused: readonly string[];
}

export interface Story {
  readonly name: string;
  readonly section: string;
  readonly machine?: MachineOptions;
  readonly tell: (machine: NestedMachine) => Promise<Seen["arrived"]>;
  /** As the specification has it for a unit with QEMU's capabilities. */
  readonly specified: Seen;
  /** As QEMU 11.1 does it; left out: as specified. */
  readonly gap?: Seen;
}

const ATTACH = `VFIO_DEVICE_ATTACH_IOMMUFD_PT -${EINVAL}`;
const seen = (arrived: Seen["arrived"], more: Partial<Seen> = {}): Seen => ({
  arrived,
  recorded: false,
  stale: false,
  refused: [],
  ...more,
});
const blocked = seen("nowhere", { recorded: true });

/** The entry as it is given, and one write. */
const placed =
  (fields: Fields, reserved: readonly bigint[] = []): Story["tell"] =>
  async (machine) => {
    await machine.place(fields, { reserved });
    return machine.write();
  };

/** A write, another page behind the same address, invalidated so, and a write. */
const remapped =
  (invalidate: (machine: NestedMachine) => Promise<void>, writing: Writing = {}): Story["tell"] =>
  async (machine) => {
    await machine.place({});
    if (writing.pasid !== undefined) await machine.place({}, writing);
    if ((await machine.write(writing)) !== "before")
      throw new Error("the first write does not go through the first stage");
    await machine.remap(AFTER);
    await invalidate(machine);
    return machine.write(writing);
  };

const PASID = 7;
const WITH_PASIDS: MachineOptions = { pasids: true };
const pageOf =
  (pasid: number): ((machine: NestedMachine) => Promise<void>) =>
  (machine) =>
    machine.invalidate("pasidIotlb", { G: 3, DID: 5, PASID: pasid, ADDR: IOVA >> 12n });

/** A feature that neither QEMU's unit nor the host's has. */
const lacking = (feature: string): MachineOptions => ({ features: { [feature]: false } });
/** intel_pasid_setup_nested refuses what the host's ECAP has not; QEMU prints that, and its guest goes on. */
const refusedAtAttach = seen("untranslated", { refused: [ATTACH] });

export const STORIES: readonly Story[] = [
  {
    name: "a first stage of four levels",
    section: "§9.6",
    tell: placed({}),
    specified: seen("before"),
  },
  {
    name: "a page changed, PASID-IOTLB invalidation of the page",
    section: "§6.5.2",
    tell: remapped(pageOf(0)),
    specified: seen("after"),
  },
  {
    name: "a page changed, PASID-IOTLB invalidation of the PASID",
    section: "§6.5.2",
    tell: remapped((machine) => machine.invalidate("pasidIotlb", { G: 2, DID: 5, PASID: 0 })),
    specified: seen("after"),
  },
  {
    name: "a page changed, IOTLB invalidation of the domain",
    section: "§6.5.2.3: drops first-stage entries of the domain id, too",
    tell: remapped((machine) => machine.invalidate("iotlb", { G: 2, DID: 5, DW: 1, DR: 1 })),
    specified: seen("after"),
    gap: seen("before", { stale: true }),
  },
  {
    name: "a page changed, IOTLB invalidation of everything",
    section: "§6.5.2.3",
    tell: remapped((machine) => machine.invalidate("iotlb", { G: 1, DW: 1, DR: 1 })),
    specified: seen("after"),
    gap: seen("before", { stale: true }),
  },
  {
    name: "a page not present",
    section: "§7.1.3, 71h",
    tell: async (machine) => {
      await machine.unmap();
      return placed({})(machine);
    },
    specified: blocked,
    // There is no event queue of VT-d's in iommufd: Linux keeps these to itself.
    gap: seen("nowhere"),
  },
  {
    name: "an entry that was never present",
    section: "§7.1.3, 59h",
    tell: placed({ P: 0 }),
    specified: blocked,
    gap: seen("untranslated"),
  },
  {
    name: "an entry that is taken away",
    section: "§7.1.3, 59h",
    tell: async (machine) => {
      await machine.place({});
      return placed({ P: 0 })(machine);
    },
    specified: blocked,
    gap: seen("nowhere"),
  },
  {
    name: "pass-through",
    section: "§9.6",
    tell: placed({ PGTT: 4 }),
    specified: seen("untranslated"),
  },
  {
    name: "PGTT 2: a second stage, which the unit has not",
    section: "§7.1.3, 5Bh",
    tell: placed({ PGTT: 2, AW: 2, SSPTPTR: 0x104 }),
    specified: blocked,
    gap: seen("untranslated"),
  },
  {
    name: "reserved bits of the entry",
    section: "§9.6, 5Ah",
    tell: placed({}, [1n << 5n, 1n << 16n, 1n << 8n]),
    specified: blocked,
    gap: seen("before"),
  },
  {
    name: "SRE, which the unit has not",
    section: "§9.6, 5Ah",
    tell: placed({ SRE: 1 }),
    specified: blocked,
    gap: seen("before"),
  },
  {
    name: "SRE, which the host's unit has not either",
    section: "§9.6, 5Ah",
    machine: lacking("SRS"),
    tell: placed({ SRE: 1 }),
    specified: blocked,
    gap: refusedAtAttach,
  },
  {
    name: "EAFE, which the host's unit has not either",
    section: "§9.6, 5Ah",
    machine: lacking("EAFS"),
    tell: placed({ EAFE: 1 }),
    specified: blocked,
    gap: refusedAtAttach,
  },
  {
    name: "FSPM 1: five levels, which the unit has not",
    section: "§7.1.3, 5Bh",
    tell: placed({ FSPM: 1 }),
    specified: blocked,
    gap: seen("untranslated"),
  },
  {
    name: "a PASID's entry that is there when translation is turned on",
    section: "§9.6: it was invalidated, then translation was turned on",
    machine: WITH_PASIDS,
    tell: async (machine) => {
      await machine.place({}, { pasid: PASID });
      return machine.write({ pasid: PASID });
    },
    specified: seen("before"),
    gap: seen("nowhere"),
  },
  {
    name: "a PASID's page changed, PASID-IOTLB invalidation of the page",
    section: "§6.5.2",
    machine: WITH_PASIDS,
    tell: remapped(pageOf(PASID), { pasid: PASID }),
    specified: seen("after"),
  },
  {
    name: "a page changed that the device keeps a translation of (ATS), PASID-IOTLB invalidation of the page",
    section: "§6.5.2; Linux invalidates the device's TLB with it",
    machine: WITH_PASIDS,
    tell: remapped(pageOf(0), { mode: MODE_ATS }),
    specified: seen("after"),
  },
  {
    name: "a PASID's entry is taken away",
    section: "§7.1.3, 59h",
    machine: WITH_PASIDS,
    tell: async (machine) => {
      await machine.place({});
      await machine.place({}, { pasid: PASID });
      await machine.place({ P: 0 }, { pasid: PASID });
      return machine.write({ pasid: PASID });
    },
    specified: blocked,
    gap: seen("nowhere"),
  },
  {
    name: "a page request",
    section: "§7.4",
    machine: WITH_PASIDS,
    tell: async (machine) => {
      await machine.unmap();
      await machine.place({});
      return machine.write({ mode: MODE_ATS | MODE_PRI });
    },
    specified: blocked,
    // No HWPT of QEMU's has a fault queue: the host refuses the request.
    gap: seen("nowhere"),
  },
  {
    name: "the host has no memory for a nested HWPT",
    section: "none: a unit has what it needs",
    machine: { inject: "ioctl:IOMMU_HWPT_ALLOC@2=ENOMEM" },
    tell: placed({}),
    specified: seen("nowhere", { recorded: true, refused: [`IOMMU_HWPT_ALLOC -${ENOMEM}`] }),
    gap: seen("untranslated", { refused: [`IOMMU_HWPT_ALLOC -${ENOMEM}`] }),
  },
];
