// The data structures that Identify returns (NVMe 1.4 §5.15.2): controller, namespace, active namespace list, namespace
// identification descriptors. Each is 4096 bytes, little-endian; names and offsets as in the figures.

import { bit, bits, structure } from "../../base/fields.ts";
import { layout, u8, u16, u32 } from "../../base/layout.ts";
import type { BlockStore } from "./block-store.ts";
import { NAMESPACE, TRANSFER_PAGES_LOG2 } from "./commands.ts";

export const IDENTIFY_BYTES = 4096;

// Values of CNS (§5.15.1).
export const IDENTIFY_NAMESPACE = 0x00;
export const IDENTIFY_CONTROLLER = 0x01;
export const IDENTIFY_ACTIVE_NAMESPACES = 0x02;
export const IDENTIFY_DESCRIPTORS = 0x03;

/** Outstanding Asynchronous Event Requests, and Abort commands, at most. */
export const ASYNCHRONOUS_EVENT_LIMIT = 4;
const ABORT_LIMIT = 4;
/** Commands fetched from one queue in its turn, log2 (Identify Controller, RAB). */
export const RECOMMENDED_ARBITRATION_BURST = 3;
/** Entries of the error log. */
export const ERROR_LOG_ENTRIES = 16;

/** Composite temperature that the model always has, and its thresholds, in kelvins. */
export const TEMPERATURE = 310;
export const WARNING_TEMPERATURE = 343;
const CRITICAL_TEMPERATURE = 353;

/** Optional NVM command support (§5.15.2.2, ONCS). */
const ONCS = structure("ONCS", "NVMe 1.4 §5.15.2.2", 1, {
  COMPARE: bit(0),
  DATASET_MANAGEMENT: bit(2),
  WRITE_ZEROES: bit(3),
  SAVE_AND_SELECT: bit(4),
});

/** Entry sizes as powers of two: required in 3:0, largest in 7:4. */
const ENTRY_SIZES = structure("SQES/CQES", "NVMe 1.4 §5.15.2.2", 1, { MINIMUM: bits(3, 0), MAXIMUM: bits(7, 4) });

const CONTROLLER = layout("Identify Controller", IDENTIFY_BYTES, {
  vid: u16(0),
  ssvid: u16(2),
  rab: u8(72),
  mdts: u8(77),
  cntlid: u16(78),
  ver: u32(80),
  oaes: u32(92),
  ctratt: u32(96),
  cntrltype: u8(111),
  oacs: u16(256),
  acl: u8(258),
  aerl: u8(259),
  frmw: u8(260),
  lpa: u8(261),
  elpe: u8(262),
  npss: u8(263),
  wctemp: u16(266),
  cctemp: u16(268),
  sqes: u8(512),
  cqes: u8(513),
  maxcmd: u16(514),
  nn: u32(516),
  oncs: u16(520),
  fna: u8(524),
  vwc: u8(525),
  awun: u16(526),
  awupf: u16(528),
  sgls: u32(536),
  psd0MaximumPower: u16(2048),
});
const SERIAL_NUMBER = { at: 4, bytes: 20 };
const MODEL_NUMBER = { at: 24, bytes: 40 };
export const FIRMWARE_REVISION = { at: 64, bytes: 8 };
const QUALIFIED_NAME = { at: 768, bytes: 256 };

/** As the edu device: no registered vendor, so that no guest driver binds to it by id but the class driver. */
export const VENDOR = 0x1234;
export const VERSION_1_4 = 0x0001_0400;
const IO_CONTROLLER = 1;
/** Slot 1 is read-only, one slot. */
const FIRMWARE_ONE_READ_ONLY_SLOT = 0x03;
/** Log pages may be read from an offset. */
const LOG_PAGE_OFFSETS = 1 << 2;
/** A write cache is present; Flush of every namespace is supported. */
const WRITE_CACHE_FLUSH_ALL = 0x07;

export interface ControllerIdentity {
  /** Up to 20 printable ASCII characters. */
  readonly serial: string;
}

export const FIRMWARE = "1.0";
const MODEL = "nestbox NVMe";

/** Identify Controller. */
export function identifyController(into: Uint8Array, { serial }: ControllerIdentity): void {
  into.fill(0, 0, IDENTIFY_BYTES);
  const optionalCommands: bigint[] = [];
  for (const name of Object.keys(ONCS.fields)) ONCS.set(optionalCommands, name as keyof typeof ONCS.fields, 1n);
  CONTROLLER.patch(into, {
    vid: VENDOR,
    ssvid: VENDOR,
    rab: RECOMMENDED_ARBITRATION_BURST,
    mdts: TRANSFER_PAGES_LOG2,
    ver: VERSION_1_4,
    cntrltype: IO_CONTROLLER,
    acl: ABORT_LIMIT - 1,
    aerl: ASYNCHRONOUS_EVENT_LIMIT - 1,
    frmw: FIRMWARE_ONE_READ_ONLY_SLOT,
    lpa: LOG_PAGE_OFFSETS,
    elpe: ERROR_LOG_ENTRIES - 1,
    wctemp: WARNING_TEMPERATURE,
    cctemp: CRITICAL_TEMPERATURE,
    sqes: entrySize(6),
    cqes: entrySize(4),
    nn: 1,
    oncs: Number(optionalCommands[0]),
    vwc: WRITE_CACHE_FLUSH_ALL,
    psd0MaximumPower: 500,
  });
  putText(into, SERIAL_NUMBER, serial, 0x20);
  putText(into, MODEL_NUMBER, MODEL, 0x20);
  putText(into, FIRMWARE_REVISION, FIRMWARE, 0x20);
  putText(into, QUALIFIED_NAME, `nqn.2014-08.org.nvmexpress:uuid:${uuidText(identifier(serial))}`, 0);
}

function entrySize(log2: number): number {
  const word: bigint[] = [];
  ENTRY_SIZES.set(word, "MINIMUM", BigInt(log2));
  ENTRY_SIZES.set(word, "MAXIMUM", BigInt(log2));
  return Number(word[0]);
}

const NAMESPACE_SIZE = 0;
const NAMESPACE_CAPACITY = 8;
const NAMESPACE_UTILIZATION = 16;
const NAMESPACE_GUID = 104;
const EXTENDED_UNIQUE_ID = 120;
const LBA_FORMAT_0 = 128;

/** Identify Namespace: one LBA format, no metadata, no protection; what deallocated blocks read is not said (DLFEAT 0). */
export function identifyNamespace(into: Uint8Array, store: BlockStore, identity: ControllerIdentity): void {
  into.fill(0, 0, IDENTIFY_BYTES);
  for (const at of [NAMESPACE_SIZE, NAMESPACE_CAPACITY, NAMESPACE_UTILIZATION]) putNumber(into, at, 8, store.blocks);
  const id = identifier(identity.serial);
  into.set(id, NAMESPACE_GUID);
  into.set(id.subarray(8), EXTENDED_UNIQUE_ID);
  into[LBA_FORMAT_0 + 2] = Math.log2(store.blockBytes);
}

/** Active namespaces with an id above `after`, ascending (§5.15.2.3). */
export function identifyActiveNamespaces(into: Uint8Array, after: number): void {
  into.fill(0, 0, IDENTIFY_BYTES);
  if (after < NAMESPACE) putNumber(into, 0, 4, NAMESPACE);
}

/** Namespace identification descriptors: type, length, 2 reserved bytes, identifier (§5.15.2.4). */
export function identifyDescriptors(into: Uint8Array, identity: ControllerIdentity): void {
  into.fill(0, 0, IDENTIFY_BYTES);
  const id = identifier(identity.serial);
  let at = 0;
  for (const [type, bytes] of [
    [1, id.subarray(8)],
    [2, id],
    [3, id],
  ] as const) {
    into[at] = type;
    into[at + 1] = bytes.length;
    into.set(bytes, at + 4);
    at += 4 + bytes.length;
  }
}

/** 16 bytes made from the serial number, shaped as a version 4 UUID: the same drive always has the same identifiers. */
function identifier(serial: string): Uint8Array {
  const id = new Uint8Array(16);
  // FNV-1a, run on for every byte of the result.
  let hash = 0x811c9dc5;
  const mix = (byte: number): void => {
    hash = Math.imul(hash ^ byte, 0x01000193);
  };
  for (let i = 0; i < serial.length; i++) mix(serial.charCodeAt(i));
  for (let i = 0; i < id.length; i++) {
    mix(i);
    id[i] = hash >>> 24;
  }
  id[6] = (id[6]! & 0x0f) | 0x40;
  id[8] = (id[8]! & 0x3f) | 0x80;
  return id;
}

function uuidText(id: Uint8Array): string {
  const text = [...id].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${text.slice(0, 8)}-${text.slice(8, 12)}-${text.slice(12, 16)}-${text.slice(16, 20)}-${text.slice(20)}`;
}

export function putText(
  into: Uint8Array,
  { at, bytes }: { at: number; bytes: number },
  text: string,
  fill: number,
): void {
  for (let i = 0; i < bytes; i++) into[at + i] = i < text.length ? text.charCodeAt(i) & 0x7f : fill;
}

/** Little-endian `value` below 2^53 in `bytes` bytes. */
export function putNumber(into: Uint8Array, at: number, bytes: number, value: number): void {
  let rest = value;
  for (let i = 0; i < bytes; i++) {
    into[at + i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}
