// What a host consists of, as a JSON document: memory, IOMMUs with their capabilities, PCI and platform devices behind them, groups.
// `parseHost` checks a document and says in one line what is wrong and where. host/README.md documents every field.

import * as z from "zod";
import { parseSize } from "./base/byte-size.ts";
import { isPrintable } from "./base/printable.ts";
import { HARDWARE_KINDS, type HardwareKinds } from "./hw/iommu/kinds.ts";
import { DEVIATIONS } from "./kernel/iommu/kinds.ts";

/** "16M", "2G", 4096: bytes, a multiple of 4 KiB. */
const size = z
  .union([z.string().regex(/^\d+[KMG]?$/, "a size such as 64M"), z.number().int().positive()])
  .transform((value) => parseSize(value))
  .refine(
    (bytes) => bytes > 0 && bytes % 4096 === 0 && Number.isSafeInteger(bytes),
    "a size is a positive multiple of 4096 bytes, below 2^53",
  );

const bdf = z
  .string()
  .regex(
    /^(00[0-9a-f]{2}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/,
    "a PCI address such as 0000:01:00.0, with a domain up to 00ff",
  )
  .transform((text) => (text.length === 7 ? `0000:${text}` : text));

const hexOrNumber = z
  .union([z.number().int().nonnegative(), z.string().regex(/^0x[0-9a-fA-F]+$/, "a number or 0x… string")])
  .transform((value) => BigInt(value));

const UNPRINTABLE = "text without control characters";
/** A name: it becomes a key of tables, a part of paths in a tree, and is shown. */
const name = z
  .string()
  .min(1)
  .max(100)
  .refine(isPrintable, UNPRINTABLE)
  .refine((text) => text !== "__proto__", "another name");

/** An IOMMU's options are its kind's to check (`parseHost`), which also checks their values and how they go together. */
const iommu = z.strictObject({
  name,
  kind: z.string(),
  options: z.record(z.string(), z.unknown()).default({}),
});

const edu = z.strictObject({
  dmaMask: hexOrNumber.optional(),
  /** Width of PASIDs, 1 to 20; 0: none. */
  pasidBits: z.number().int().min(0).max(20).optional(),
  ats: z.boolean().optional(),
  /** Needs ats. */
  pri: z.boolean().optional(),
  /** Logs the pages it writes itself (VFIO DMA logging). */
  dmaLogging: z.boolean().optional(),
  /** The device can be told to break the rules of ATS and PRI. */
  misbehaviour: z.boolean().optional(),
  messages: z.boolean().optional(),
});

const nvme = z.strictObject({
  /** Host file behind namespace 1; without it, memory. */
  file: z.string().optional(),
  size: size.optional(),
  blockBytes: z.union([z.literal(512), z.literal(4096)]).optional(),
  /** False: neither MSI nor MSI-X, interrupts come by the pin. */
  messages: z.boolean().optional(),
});

const device = z.discriminatedUnion("model", [
  z.strictObject({
    model: z.literal("edu"),
    bdf,
    iommu: z.string().optional(),
    group: z.number().int().nonnegative().optional(),
    options: edu.default({}),
  }),
  z.strictObject({
    model: z.literal("nvme"),
    bdf,
    iommu: z.string().optional(),
    group: z.number().int().nonnegative().optional(),
    options: nvme.default({}),
  }),
]);

/** A kernel name that no PCI address is, and that a person can write in `HOST@GUEST`. */
const platformName = z
  .string()
  .regex(/^[a-z][a-z0-9._-]{0,30}$/, "a name such as edu0: lower case, begins with a letter");

/** A device on no bus, as firmware describes it. */
const platformDevice = z.strictObject({
  model: z.literal("edu"),
  name: platformName,
  iommu: z.string().optional(),
  /** What its IOMMU calls it (device tree: the second cell of `iommus`). */
  deviceId: z.number().int().nonnegative().max(0xff_ffff).optional(),
  /** Its transactions can wait for software (device tree: dma-can-stall). */
  canStall: z.boolean().default(false),
  options: z.strictObject({ dmaMask: hexOrNumber.optional() }).default({}),
});

const host = z.strictObject({
  name,
  description: z.string().refine(isPrintable, UNPRINTABLE).optional(),
  memory: size.default(64 * 1024 * 1024),
  iommus: z.array(iommu).default([]),
  devices: z.array(device).default([]),
  platform: z.array(platformDevice).default([]),
  /** IOVA of the MSI window that the kernel's IOMMU drivers report. */
  msiWindow: hexOrNumber
    .refine(
      (start) => start % 4096n === 0n && start <= 0xff_ffff_f000n,
      "a multiple of 4096 below 2^40, such as 0xfee00000",
    )
    .optional(),
  /** Names of what the kernel does although Linux does not. */
  deviations: z.array(z.string().refine(isPrintable, UNPRINTABLE)).default([]),
});

export type HostDescription = z.output<typeof host>;
export type DeviceDescription = z.output<typeof device>;
export type PlatformDeviceDescription = z.output<typeof platformDevice>;
export type IommuDescription = z.output<typeof iommu>;

export class HostDescriptionError extends Error {}

/** An iommu group: devices whose DMA their IOMMU cannot tell apart, or must not, for they reach each other past it. */
export interface DescribedGroup {
  /** As the kernel numbers it, and /dev/vfio names it. */
  readonly id: number;
  readonly devices: readonly string[];
}

/**
 * The iommu groups of a host as it boots, in the order of their numbers. Devices with equal `group` share one. Without: functions of one
 * slot share one (there is no ACS that would keep them apart: Linux, pci_device_group), every other device has its own. Platform devices,
 * each alone, come after the PCI ones.
 */
export function iommuGroups(description: HostDescription): DescribedGroup[] {
  const groups = new Map<string, string[]>();
  const segments = [...new Set(description.devices.map(({ bdf }) => bdf.slice(0, 4)))];
  for (const segment of segments) {
    const devices = description.devices.filter(({ bdf, iommu }) => iommu !== undefined && bdf.startsWith(segment));
    for (const device of devices.sort((a, b) => (a.bdf < b.bdf ? -1 : 1))) {
      const key = groupKeyOf(device);
      const known = groups.get(key);
      if (known === undefined) groups.set(key, [device.bdf]);
      else known.push(device.bdf);
    }
  }
  const alone = description.platform.filter(({ iommu }) => iommu !== undefined).map(({ name }) => [name]);
  return [...groups.values(), ...alone].map((devices, id) => ({ id, devices }));
}

/** Devices with equal keys share an iommu group. */
export function groupKeyOf({ bdf, group }: DeviceDescription): string {
  return group === undefined ? bdf.slice(0, -2) : String(group);
}

/**
 * Checks a host description; throws HostDescriptionError with one line that names the place. `source` names the document, `kinds` the
 * IOMMUs there may be.
 */
export function parseHost(document: unknown, source: string, kinds: HardwareKinds = HARDWARE_KINDS): HostDescription {
  const checked = <T>(schema: z.ZodType<T>, part: unknown, path: readonly PropertyKey[]): T => {
    const result = schema.safeParse(part);
    if (result.success) return result.data;
    const issue = result.error.issues[0]!;
    const place = [...path, ...issue.path].map(String).join(".") || "(top)";
    throw new HostDescriptionError(`${source}: ${place}: ${issue.message}`);
  };
  const description = checked(host, document, []);
  const iommus = new Set<string>();
  for (const [index, iommu] of description.iommus.entries()) {
    if (!Object.hasOwn(kinds, iommu.kind)) {
      const known = Object.keys(kinds).join(", ");
      throw new HostDescriptionError(
        `${source}: iommus.${index}.kind: no kind of IOMMU "${iommu.kind}" (there is ${known})`,
      );
    }
    checked(kinds[iommu.kind]!.options, iommu.options, ["iommus", index, "options"]);
    if (iommus.has(iommu.name)) throw new HostDescriptionError(`${source}: two IOMMUs are named "${iommu.name}"`);
    iommus.add(iommu.name);
  }
  const known = Object.values(DEVIATIONS).flat();
  for (const [index, deviation] of description.deviations.entries()) {
    if (known.includes(deviation)) continue;
    throw new HostDescriptionError(
      `${source}: deviations.${index}: no deviation "${deviation}" (there is ${known.join(", ")})`,
    );
  }
  const addresses = new Set<string>();
  for (const [index, { bdf: address, iommu }] of description.devices.entries()) {
    if (addresses.has(address)) {
      throw new HostDescriptionError(`${source}: devices.${index}.bdf: ${address} is taken by another device`);
    }
    addresses.add(address);
    if (iommu !== undefined && !iommus.has(iommu)) {
      throw new HostDescriptionError(`${source}: devices.${index}.iommu: there is no IOMMU "${iommu}"`);
    }
  }
  checkPlatform(description, source, kinds);
  const iommuOfGroup = new Map<string, string>();
  for (const [index, device] of description.devices.entries()) {
    if (device.iommu === undefined) continue;
    const key = groupKeyOf(device);
    const iommu = iommuOfGroup.get(key) ?? device.iommu;
    iommuOfGroup.set(key, iommu);
    if (iommu !== device.iommu) {
      const which = device.group === undefined ? "functions of one slot are a group" : `group ${key} is`;
      throw new HostDescriptionError(
        `${source}: devices.${index}.group: ${which} behind "${iommu}", this device is behind "${device.iommu}"`,
      );
    }
  }
  return description;
}

/** What the schema cannot see of platform devices: names and device ids that are taken, IOMMUs that are not there or cannot stall. */
function checkPlatform(description: HostDescription, source: string, kinds: HardwareKinds): void {
  const { devices, iommus, platform } = description;
  const wrong = (index: number, what: string) => new HostDescriptionError(`${source}: platform.${index}.${what}`);
  const names = new Set<string>();
  /** "IOMMU ID" → who has it. */
  const ids = new Map<string, string>();
  for (const { bdf, iommu } of devices) if (iommu !== undefined) ids.set(`${iommu} ${pciDeviceId(bdf)}`, bdf);
  for (const [index, { name, iommu, deviceId, canStall }] of platform.entries()) {
    if (names.has(name)) throw wrong(index, `name: ${name} is taken by another device`);
    names.add(name);
    if (iommu === undefined) {
      if (deviceId !== undefined)
        throw wrong(index, "deviceId: it is what an IOMMU calls the device; give `iommu` too");
      if (canStall) throw wrong(index, "canStall: nothing stalls a device without an IOMMU; give `iommu` too");
      continue;
    }
    const known = iommus.find((candidate) => candidate.name === iommu);
    if (known === undefined) throw wrong(index, `iommu: there is no IOMMU "${iommu}"`);
    if (deviceId === undefined) throw wrong(index, `deviceId: say by which id "${iommu}" knows ${name}`);
    const key = `${iommu} ${deviceId}`;
    if (ids.has(key)) throw wrong(index, `deviceId: 0x${deviceId.toString(16)} is ${ids.get(key)}'s at "${iommu}"`);
    ids.set(key, name);
    if (canStall && kinds[known.kind]!.stalls !== true) {
      throw wrong(index, `canStall: "${iommu}" is of a kind that never stalls a device (${known.kind})`);
    }
  }
}

/** Segment, bus, device and function of a PCI address with its domain. */
export function splitBdf(bdf: string): { segment: number; requesterId: number } {
  const [segment, bus, rest] = bdf.split(":") as [string, string, string];
  const [device, fn] = rest.split(".") as [string, string];
  const requesterId = (Number.parseInt(bus, 16) << 8) | (Number.parseInt(device, 16) << 3) | Number(fn);
  return { segment: Number.parseInt(segment, 16), requesterId };
}

/** What an IOMMU calls a function: segments behind one IOMMU are told apart by the segment's number above the requester id. */
export function pciDeviceId(bdf: string): number {
  const { segment, requesterId } = splitBdf(bdf);
  return (segment << 16) | requesterId;
}
