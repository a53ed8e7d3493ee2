// What happens in a story, as data: verbs of a guest driver, of a device, and of the host's administrator, in words of every kind of IOMMU.
// One list is played (play.ts), printed as a scenario (print.ts), shown, and added to by whoever watches.
//
// Pages of guest RAM and first stages are known by names; the first use makes them.

/** Where a mapping leads: a named page of guest RAM, or a guest-physical address. */
export type Target = string | bigint;

export type Verb =
  | { readonly do: "map"; readonly table: string; readonly iova: bigint; readonly to: Target; readonly write?: false }
  | { readonly do: "unmap"; readonly table: string; readonly iova: bigint }
  /** `what`: a first stage's name, or a word of its own. */
  | { readonly do: "install"; readonly device: string; readonly what: "bypass" | "blocked" | (string & {}) }
  | { readonly do: "invalidate"; readonly table: string; readonly iova: bigint }
  /** `at`: an IOVA, or a named page by its guest-physical address. */
  | { readonly do: "read" | "write"; readonly device: string; readonly at: Target }
  /** A transfer by the device's own engine, which takes time: a page, from the device to memory. */
  | { readonly do: "start"; readonly device: string; readonly iova: bigint }
  | { readonly do: "wait"; readonly ns: number }
  | { readonly do: "unplug"; readonly device: string }
  /** The host fails by these rules from now on. */
  | { readonly do: "inject"; readonly rules: readonly string[] }
  /** One bit of a table entry, at a host-physical address, is another: what whoever watches does. */
  | { readonly do: "flip"; readonly spa: bigint; readonly bit: number };

export interface Beat {
  readonly title: string;
  /** Three sentences: what is done, what comes of it, what to look at. */
  readonly says: readonly [string, string, string];
  readonly verbs: readonly Verb[];
}

export interface Story {
  /** In addresses of the page. */
  readonly id: string;
  readonly title: string;
  readonly summary: string;
  /** As `VmOptions.assign`. */
  readonly assign: readonly string[];
  readonly beats: readonly Beat[];
}

/** A verb put in by whoever watches, behind the verb with this number (from 0, over all beats). */
export interface Insert {
  readonly after: number;
  readonly verb: Verb;
}

/** A verb in the order it is played, with the beat it belongs to. */
export interface PlacedVerb {
  readonly beat: number;
  readonly verb: Verb;
  /** Its number among the story's own; null: put in. */
  readonly own: number | null;
}

/** All verbs in order, those put in among them. */
export function placedVerbs(story: Story, inserts: readonly Insert[] = []): PlacedVerb[] {
  const placed: PlacedVerb[] = [];
  let own = 0;
  story.beats.forEach(({ verbs }, beat) => {
    for (const verb of verbs) {
      placed.push({ beat, verb, own });
      for (const insert of inserts) if (insert.after === own) placed.push({ beat, verb: insert.verb, own: null });
      own++;
    }
  });
  return placed;
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;
const place = (target: Target): string => (typeof target === "string" ? `page ${target}` : hex(target));

/** A verb in a few words. */
export function verbText(verb: Verb): string {
  switch (verb.do) {
    case "map":
      return `the guest maps IOVA ${hex(verb.iova)} to ${place(verb.to)}${verb.write === false ? ", read-only" : ""}`;
    case "unmap":
      return `the guest unmaps IOVA ${hex(verb.iova)}`;
    case "install":
      return `the guest sets device ${verb.device} to ${verb.what === "bypass" || verb.what === "blocked" ? verb.what : "nested"}`;
    case "invalidate":
      return `the guest invalidates IOVA ${hex(verb.iova)} and waits for it`;
    case "read":
    case "write":
      return `device ${verb.device} ${verb.do}s ${place(verb.at)}`;
    case "start":
      return `device ${verb.device} starts to write a page at IOVA ${hex(verb.iova)}`;
    case "wait":
      return `${verb.ns / 1000} µs pass`;
    case "unplug":
      return `device ${verb.device} is unplugged`;
    case "inject":
      return verb.rules.length === 0 ? "the host fails no more" : `the host is made to fail: ${verb.rules.join(", ")}`;
    case "flip":
      return `you flip bit ${verb.bit} of the entry at ${hex(verb.spa)}`;
  }
}
