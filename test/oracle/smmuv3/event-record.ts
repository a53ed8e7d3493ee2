/**
 * Event records (§7.3): which fields each event has, and which of their bits mean nothing.
 */
import type { Features } from "./identification.ts";
import { type Class, EVENT, type EventRecord, type Fault, type Request } from "./outcome.ts";

const CLASSES: Record<Class, bigint> = { CD: 0n, TT: 1n, IN: 2n };
const SSV = 1n << 11n;
const SSID = 0xfffffn << 12n;
const REASON = 0xffffn;
const PnU = 1n << 33n;
const InD = 1n << 34n;
const RnW = 1n << 35n;
const S2 = 1n << 39n;
const TTRnW = 1n << 44n;
const ADDRESS_55_12 = 0xff_ffff_ffff_f000n;
const ADDRESS_55_3 = 0xff_ffff_ffff_fff8n;

/** The attributes of the request after the overrides of the stream table entry. */
export interface Attributes {
  readonly privileged: boolean;
  readonly instruction: boolean;
}

export function eventRecord(
  f: Features,
  request: Request,
  { event, details }: Fault,
  attributes: Attributes,
  stalled: boolean,
): EventRecord {
  const ats = request.kind === "ats";
  const physical = (1n << f.OAS) - 1n;
  // Translated transactions count as if they had no SubstreamID (§3.9.1.3).
  const ssid = request.kind === "translated" ? null : request.ssid;
  let dw0 = BigInt(EVENT[event]) | (request.sid << 32n);
  let unknown0 = 0n;
  let dw1 = 0n;
  let unknown1 = 0n;
  let dw2 = 0n;
  let dw3 = 0n;
  let unknown3 = 0n;
  const substream = () => {
    if (ssid === null) unknown0 |= SSID;
    else dw0 |= SSV | (ssid << 12n);
  };
  const access = () => {
    if (!request.write) dw1 |= RnW;
    if (attributes.instruction && !request.write) dw1 |= InD;
    if (attributes.privileged) dw1 |= PnU;
    // A Translation Request is neither a read nor a write (§3.9.1.2).
    if (ats) unknown1 |= RnW | InD;
  };
  switch (event) {
    case "C_BAD_STREAMID":
    case "C_BAD_STE":
    case "C_BAD_CD":
      substream();
      break;
    case "F_STE_FETCH":
    case "F_CD_FETCH":
      substream();
      unknown1 |= REASON;
      dw3 = details.fetchAddress! & ADDRESS_55_3;
      // §7.3.4: bits above the OAS are RES0, but a fetch beyond it has an address that is not truncated (§3.4.3).
      if (dw3 >> f.OAS !== 0n) unknown3 |= ~physical & ADDRESS_55_3;
      break;
    case "C_BAD_SUBSTREAMID":
      dw0 |= (ssid ?? 0n) << 12n; // always valid, without SSV
      break;
    case "F_STREAM_DISABLED":
      break;
    case "F_BAD_ATS_TREQ":
      substream();
      dw2 = request.iova;
      unknown1 = (1n << 64n) - 1n; // positions of Span, R, W, X, Priv: see the README
      break;
    case "F_TRANSL_FORBIDDEN":
      if (!request.write) dw1 |= RnW;
      dw2 = request.iova;
      break;
    case "F_WALK_EABT":
      substream();
      access();
      unknown1 |= REASON;
      if (details.stage === 2) dw1 |= S2;
      dw1 |= CLASSES[details.class!] << 40n;
      dw2 = request.iova;
      dw3 = details.fetchAddress! & ADDRESS_55_3;
      break;
    case "F_TRANSLATION":
    case "F_ADDR_SIZE":
    case "F_ACCESS":
    case "F_PERMISSION":
      substream();
      access();
      if (stalled) {
        dw1 |= 1n << 31n;
        unknown1 |= 0xffffn; // STAG: the SMMU's choice
      }
      dw1 |= CLASSES[details.class!] << 40n;
      dw2 = request.iova;
      if (details.stage === 2) {
        dw1 |= S2;
        dw3 = details.ipa! & ADDRESS_55_12;
      } else unknown3 = ADDRESS_55_12; // no IPA
      if (event === "F_PERMISSION") {
        if (details.class !== "TT") unknown1 |= TTRnW;
        else if (details.tableRead) dw1 |= TTRnW;
      }
      break;
  }
  return { doublewords: [dw0, dw1, dw2, dw3], unknown: [unknown0, unknown1, 0n, unknown3] };
}
