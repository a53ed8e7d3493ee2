// Packets of the GDB remote serial protocol (GDB manual, "Remote Protocol": Overview): `$payload#checksum`, the payload's bytes # $ } * escaped as } and
// the byte XOR 0x20; between packets + and - say that one arrived, and 0x03 is somebody's Ctrl-C. Payloads are strings of bytes (latin1).

/** Bytes of a payload, escaped, that are taken; what qSupported says as PacketSize. */
export const MOST_PAYLOAD = 0x4000;

const BEGIN = 0x24; // $
const END = 0x23; // #
const ESCAPE = 0x7d; // }
const RUN = 0x2a; // *

export type Received =
  | { readonly kind: "packet"; readonly payload: string }
  /** One whose checksum is wrong, or that is longer than MOST_PAYLOAD. */
  | { readonly kind: "damaged" }
  | { readonly kind: "acknowledged" }
  /** The other side wants the last packet again. */
  | { readonly kind: "again" }
  | { readonly kind: "interrupt" };

export function encodePacket(payload: string): Uint8Array {
  const bytes: number[] = [BEGIN];
  let sum = 0;
  const put = (byte: number): void => {
    bytes.push(byte);
    sum = (sum + byte) & 0xff;
  };
  for (let n = 0; n < payload.length; n++) {
    const byte = payload.charCodeAt(n) & 0xff;
    if (byte === BEGIN || byte === END || byte === ESCAPE || byte === RUN) {
      put(ESCAPE);
      put(byte ^ 0x20);
    } else put(byte);
  }
  const digits = sum.toString(16).padStart(2, "0");
  bytes.push(END, digits.charCodeAt(0), digits.charCodeAt(1));
  return Uint8Array.from(bytes);
}

/** Takes bytes as they come, in whatever pieces. Holds at most MOST_PAYLOAD of them. */
// Not state: a debugger is outside of the machine.
export class PacketReader {
  /** Between packets, in one, behind its #, behind the first digit. */
  #place: "outside" | "payload" | "digit" | "last" = "outside";
  #payload: number[] = [];
  #sum = 0;
  #escaped = false;
  #tooLong = false;
  #given = 0;

  *take(bytes: Uint8Array): Generator<Received> {
    for (const byte of bytes) {
      const received = this.#byte(byte);
      if (received !== null) yield received;
    }
  }

  #byte(byte: number): Received | null {
    // Unescaped it is in no payload and no checksum: what was under way is lost, and a packet begins.
    if (byte === BEGIN) {
      const lost = this.#place !== "outside";
      this.#begin();
      return lost ? { kind: "damaged" } : null;
    }
    switch (this.#place) {
      case "outside":
        if (byte === 0x03) return { kind: "interrupt" };
        else if (byte === 0x2b) return { kind: "acknowledged" };
        else if (byte === 0x2d) return { kind: "again" };
        return null;
      case "payload":
        if (byte === END) this.#place = "digit";
        else this.#put(byte);
        return null;
      case "digit":
        this.#given = digit(byte) << 4;
        this.#place = "last";
        return null;
      case "last": {
        this.#place = "outside";
        const whole = (this.#given | digit(byte)) === this.#sum && !this.#tooLong && !this.#escaped;
        return whole ? { kind: "packet", payload: latin1(this.#payload) } : { kind: "damaged" };
      }
    }
  }

  #begin(): void {
    this.#place = "payload";
    this.#payload = [];
    this.#sum = 0;
    this.#escaped = false;
    this.#tooLong = false;
  }

  #put(byte: number): void {
    this.#sum = (this.#sum + byte) & 0xff;
    if (byte === ESCAPE && !this.#escaped) {
      this.#escaped = true;
      return;
    }
    if (this.#payload.length >= MOST_PAYLOAD) this.#tooLong = true;
    else this.#payload.push(this.#escaped ? byte ^ 0x20 : byte);
    this.#escaped = false;
  }
}

/** −1 for what is none: no checksum is negative. */
function digit(byte: number): number {
  const value = "0123456789abcdef".indexOf(String.fromCharCode(byte).toLowerCase());
  return value < 0 ? -1 : value;
}

function latin1(bytes: readonly number[]): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** Bytes as hexadecimal digits. */
export function hexOf(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** null for what is no whole number of hexadecimal bytes. */
export function bytesOfHex(text: string): Uint8Array | null {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return null;
  return Uint8Array.from({ length: text.length / 2 }, (_, n) => Number.parseInt(text.slice(2 * n, 2 * n + 2), 16));
}

/** A little-endian number as hexadecimal bytes, as registers travel. */
export function hexOfNumber(value: bigint, bytes: number): string {
  let text = "";
  for (let n = 0; n < bytes; n++)
    text += Number((value >> BigInt(8 * n)) & 0xffn)
      .toString(16)
      .padStart(2, "0");
  return text;
}

export function numberOfBytes(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let n = bytes.length - 1; n >= 0; n--) value = (value << 8n) | BigInt(bytes[n]!);
  return value;
}

/** A text's bytes (UTF-8) as hexadecimal digits. */
export function hexOfText(text: string): string {
  return hexOf(new TextEncoder().encode(text));
}

/** An address or a length: hexadecimal digits, up to 64 bits; null for anything else. */
export function addressOf(text: string | undefined): bigint | null {
  return text !== undefined && /^[0-9a-fA-F]{1,16}$/.test(text) ? BigInt(`0x${text}`) : null;
}
