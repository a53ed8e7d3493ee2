// The stories there are. Each is told on every kind of IOMMU, so its sentences name no architecture's words: those stand in what the page shows
// beside them.

import type { Story } from "./verbs.ts";

const DEVICE = "00:02.0";
const ASSIGN = [`0000:00:01.0@${DEVICE}`];

export const STORIES: readonly Story[] = [
  {
    id: "bypass-to-nested",
    title: "Bypass to nested",
    summary: "A device first reaches guest memory directly, then through page tables that the guest owns.",
    assign: ASSIGN,
    beats: [
      {
        title: "Nothing is set up",
        says: [
          "A device has been given to a guest, and the guest has not told its IOMMU anything about it yet.",
          "The device tries to read memory anyway, and the IOMMU refuses it.",
          "The walk ends at the device's entry in the directory: it holds what the guest has said of the device, which is nothing. So this fault is the guest's.",
        ],
        verbs: [{ do: "read", device: DEVICE, at: "A" }],
      },
      {
        title: "Bypass",
        says: [
          "The guest says that the device needs no translation: what it puts on the bus is a guest-physical address.",
          "The host still translates it, because guest memory lies somewhere else in the machine: that is stage 2.",
          "The walk has one row: the address itself, through the host's tables.",
        ],
        verbs: [
          { do: "install", device: DEVICE, what: "bypass" },
          { do: "read", device: DEVICE, at: "A" },
        ],
      },
      {
        title: "A first stage",
        says: [
          "Now the guest builds page tables of its own, maps one page at 0x4000, and hands the tables to its IOMMU.",
          "The host puts them in front of its own: every entry of the guest's tables lies in guest memory, so finding each one is a stage 2 walk.",
          "That is the grid: a row for each entry of the guest's, a column for each of the host's that leads there.",
        ],
        verbs: [
          { do: "map", table: "S", iova: 0x4000n, to: "A" },
          { do: "install", device: DEVICE, what: "S" },
          { do: "read", device: DEVICE, at: 0x4000n },
        ],
      },
      {
        title: "Once more",
        says: [
          "The device reads the same address again.",
          "The hardware remembers where it leads and walks no table at all.",
          "What it remembers stands below, beside what the tables say: they agree.",
        ],
        verbs: [{ do: "read", device: DEVICE, at: 0x4000n }],
      },
    ],
  },
  {
    id: "a-fault-comes-home",
    title: "A fault comes home",
    summary: "Three accesses fail for three reasons; the page says whose fault each is and where the news goes.",
    assign: ASSIGN,
    beats: [
      {
        title: "Two pages, one for reading only",
        says: [
          "The guest maps 0x4000 for reading and writing, and 0x5000 for reading only.",
          "The device reads 0x5000, which is allowed.",
          "The right that matters stands in the last entry of the guest's tables.",
        ],
        verbs: [
          { do: "map", table: "S", iova: 0x4000n, to: "A" },
          { do: "map", table: "S", iova: 0x5000n, to: "A", write: false },
          { do: "map", table: "S", iova: 0x6000n, to: 0x1000n },
          { do: "install", device: DEVICE, what: "S" },
          { do: "read", device: DEVICE, at: 0x5000n },
        ],
      },
      {
        title: "A right is missing",
        says: [
          "The device writes to 0x5000.",
          "The walk finds the page, and the guest's entry does not allow writing: the guest's own tables refuse.",
          "The hardware records it and the kernel reads the record; whether it goes on to the guest depends on the architecture, and the verdict says what came of it here.",
        ],
        verbs: [{ do: "write", device: DEVICE, at: 0x5000n }],
      },
      {
        title: "Nobody mapped it",
        says: [
          "The device reads 0x9000, which the guest never mapped.",
          "The walk ends at an entry that is not valid.",
          "Again it is the guest's fault, and the news goes the same way.",
        ],
        verbs: [{ do: "read", device: DEVICE, at: 0x9000n }],
      },
      {
        title: "Mapped to nowhere",
        says: [
          "The guest had mapped 0x6000 to a guest-physical address at which it has no memory.",
          "The guest's tables allow it; the host's do not, so now stage 2 refuses, in the last row.",
          "What a guest hears of that is the architecture's choice: compare the kinds.",
        ],
        verbs: [{ do: "write", device: DEVICE, at: 0x6000n }],
      },
    ],
  },
  {
    id: "the-stale-iotlb-entry",
    title: "The stale IOTLB entry",
    summary: "A guest takes a page away and forgets to say so; the device goes on using it.",
    assign: ASSIGN,
    beats: [
      {
        title: "Mapped",
        says: [
          "The guest maps a page at 0x4000, and the device writes to it.",
          "The walk that this took is now remembered in the hardware's IOTLB.",
          "Tables and cache agree.",
        ],
        verbs: [
          { do: "map", table: "S", iova: 0x4000n, to: "A" },
          { do: "install", device: DEVICE, what: "S" },
          { do: "write", device: DEVICE, at: 0x4000n },
        ],
      },
      {
        title: "Unmapped, and nothing said",
        says: [
          "The guest clears its entry for 0x4000 and sends no invalidation.",
          "The device writes again, and the write goes through: the hardware may use what it remembers until it is told to forget.",
          "Below, the entry is stale: the tables say no, the cache says yes. Data has gone to a page that the guest thinks is free.",
        ],
        verbs: [
          { do: "unmap", table: "S", iova: 0x4000n },
          { do: "write", device: DEVICE, at: 0x4000n },
        ],
      },
      {
        title: "Invalidated",
        says: [
          "The guest invalidates 0x4000 and waits until that is done.",
          "The command goes from the guest's queue through the host into the hardware's queue, and the entry is gone.",
          "Tables and cache agree again: nothing is there.",
        ],
        verbs: [{ do: "invalidate", table: "S", iova: 0x4000n }],
      },
      {
        title: "Refused at last",
        says: [
          "The device writes a third time.",
          "The hardware walks the tables, finds nothing, and refuses.",
          "This is the fault that should have come at once; nothing but the invalidation was missing.",
        ],
        verbs: [{ do: "write", device: DEVICE, at: 0x4000n }],
      },
    ],
  },
  {
    id: "unplug-during-dma",
    title: "Unplug during DMA",
    summary: "A device is taken away in the middle of a transfer: what it wrote stays, nothing comes after.",
    assign: ASSIGN,
    beats: [
      {
        title: "A long transfer begins",
        says: [
          "The guest maps a page and has the device fill it, 64 bytes every microsecond.",
          "After ten microseconds ten bursts have arrived.",
          "Each is a DMA of its own; only the first had to walk.",
        ],
        verbs: [
          { do: "map", table: "S", iova: 0x4000n, to: "A" },
          { do: "install", device: DEVICE, what: "S" },
          { do: "start", device: DEVICE, iova: 0x4000n },
          { do: "wait", ns: 10_500 },
        ],
      },
      {
        title: "Unplugged",
        says: [
          "The device is taken from the guest while the transfer runs.",
          "The host detaches its first stage, frees every object it had for it, and gives the device back.",
          "In the objects below its line is gone.",
        ],
        verbs: [{ do: "unplug", device: DEVICE }],
      },
      {
        title: "Nothing comes after",
        says: [
          "Time passes in which the rest of the page would have been written.",
          "No further DMA arrives and no fault is reported.",
          "What was written before stays; the guest's memory is safe.",
        ],
        verbs: [{ do: "wait", ns: 100_000 }],
      },
    ],
  },
  {
    id: "the-host-says-enomem",
    title: "The host says ENOMEM",
    summary:
      "The host has no memory for a device's first stage: that device is blocked until the guest tries again and the host can.",
    assign: ASSIGN,
    beats: [
      {
        title: "The host is short of memory",
        says: [
          "From now on the host refuses to make another page table object.",
          "The guest, which knows nothing of that, maps a page and hands its tables to its IOMMU.",
          "One call fails: its line on the timeline is marked, and it names the error.",
        ],
        verbs: [
          { do: "map", table: "S", iova: 0x4000n, to: "A" },
          { do: "inject", rules: ["ioctl:IOMMU_HWPT_ALLOC=ENOMEM"] },
          { do: "install", device: DEVICE, what: "S" },
        ],
      },
      {
        title: "Blocked, not wrong",
        says: [
          "The device reads 0x4000.",
          "Without its first stage the device must not reach anything, so the host keeps it blocked.",
          "What the guest hears of it is its architecture's choice: a record that its set-up was not accepted, or nothing at all; compare the kinds.",
        ],
        verbs: [{ do: "read", device: DEVICE, at: 0x4000n }],
      },
      {
        title: "The guest tries again",
        says: [
          "The host has memory again, and the guest sets the device up once more.",
          "This time the first stage is installed.",
          "The device reads, and its walk goes through both stages.",
        ],
        verbs: [
          { do: "inject", rules: [] },
          { do: "install", device: DEVICE, what: "S" },
          { do: "read", device: DEVICE, at: 0x4000n },
        ],
      },
    ],
  },
];

export function storyOf(id: string): Story | null {
  return STORIES.find((story) => story.id === id) ?? null;
}
