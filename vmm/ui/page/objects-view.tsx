// Who is who and what hangs on what: guest BDF → device id → vDEVICE → host BDF, and the page tables, vIOMMU and address space behind. From the guest,
// above, down to the host. The same in words follows, for those who do not see the picture.

import type { HostObject, ObjectKind, Objects } from "../../view/objects.ts";

/** A device by the guest's name, where the kernel has no vDEVICE for it: the VMM alone knows which it is. */
const GUESTS = "guest";
const LAYERS: readonly (readonly Drawn["kind"][])[] = [
  ["vDEVICE", GUESTS],
  ["device"],
  ["nested HWPT", "vEVENTQ", "HW queue"],
  ["vIOMMU", "fault queue"],
  ["HWPT"],
  ["IOAS"],
];
const WIDTH = 360;
const BOX = { width: 112, height: 36 };
const ROW = 58;
/** Objects drawn; the rest stand in the words. */
const MOST = 3;

type Drawn = Omit<HostObject, "kind"> & { readonly kind: ObjectKind | typeof GUESTS };

interface Node {
  readonly object: Drawn;
  readonly x: number;
  readonly y: number;
}

interface Props {
  readonly objects: Objects;
  /** The guest's names of the host's devices. */
  readonly guests: readonly (readonly [host: string, guest: string])[];
}

export function ObjectGraph({ objects, guests }: Props) {
  const all: readonly Drawn[] = [...objects.values(), ...guestsOf([...objects.values()], guests)];
  if (all.length === 0) return <p class="nothing">The VMM holds no object of the kernel's yet.</p>;
  // What nothing uses any more stands last, and is left out first.
  const used = new Set([...objects.values()].flatMap(({ attached }) => attached ?? []));
  const nodes = new Map<string, Node>();
  let rows = 0;
  for (const kinds of LAYERS) {
    const layer = all
      .filter(({ kind }) => kinds.includes(kind))
      .sort((a, b) => Number(used.has(b.key)) - Number(used.has(a.key)) || b.id - a.id)
      .slice(0, MOST)
      .sort((a, b) => a.id - b.id);
    if (layer.length === 0) continue;
    layer.forEach((object, n) => {
      nodes.set(object.key, { object, x: (WIDTH * (n + 0.5)) / layer.length, y: rows * ROW + BOX.height / 2 + 4 });
    });
    rows++;
  }
  const edges: [from: Node, to: Node, attached: boolean][] = [];
  for (const node of nodes.values()) {
    for (const key of node.object.on) if (nodes.has(key)) edges.push([node, nodes.get(key)!, false]);
    const attached = node.object.attached === undefined ? undefined : nodes.get(node.object.attached);
    if (attached !== undefined) edges.push([node, attached, true]);
  }
  const height = rows * ROW - (ROW - BOX.height) + 8;
  return (
    <div class="objects">
      <svg
        viewBox={`0 0 ${WIDTH} ${height}`}
        role="img"
        aria-label="Objects of the kernel and what hangs on what; in words below"
      >
        {edges.map(([from, to, attached]) => (
          <path
            key={`${from.object.key} ${to.object.key} ${attached}`}
            class={attached ? "attached" : ""}
            d={pathOf(from, to)}
          />
        ))}
        {[...nodes.values()].map(({ object, x, y }) => (
          <g key={object.key} class={`${object.kind.replace(" ", "-")} ${idle(object, used) ? "idle" : ""}`}>
            <rect x={x - BOX.width / 2} y={y - BOX.height / 2} width={BOX.width} height={BOX.height} rx={5} />
            <text x={x} y={y - 3}>
              {titleOf(object)}
            </text>
            <text x={x} y={y + 11} class="sub">
              {subtitleOf(object, used)}
            </text>
          </g>
        ))}
      </svg>
      <details>
        <summary>in words ({all.length} objects)</summary>
        <ul>
          {all.map((object) => (
            <li key={object.key}>{sentenceOf(object, objects)}</li>
          ))}
        </ul>
      </details>
    </div>
  );
}

function guestsOf(objects: readonly HostObject[], guests: Props["guests"]): Drawn[] {
  const told = new Set(objects.filter(({ kind }) => kind === "vDEVICE").flatMap(({ on }) => on));
  return objects
    .filter(({ kind, key }) => kind === "device" && !told.has(key))
    .flatMap(({ key, name }) => {
      const guest = guests.find(([host]) => host === name)?.[1];
      return guest === undefined ? [] : [{ key: `guest ${key}`, kind: GUESTS, id: 0, name: guest, on: [key] }];
    });
}

const idle = ({ kind, key }: Drawn, used: ReadonlySet<string>): boolean => kind === "nested HWPT" && !used.has(key);

function titleOf({ kind, id, name }: Drawn): string {
  if (kind === GUESTS) return `guest ${name}`;
  if (kind === "vDEVICE") return `guest ${name.split(" ")[0]}`;
  return kind === "device" ? name : `${kind} ${id}`;
}

function subtitleOf(object: Drawn, used: ReadonlySet<string>): string {
  switch (object.kind) {
    case "vDEVICE":
      return `${/\((.*)\)/.exec(object.name)?.[1] ?? ""} · vDEVICE ${object.id}`;
    case GUESTS:
      return "no vDEVICE";
    case "device":
      return object.attached === undefined ? "detached" : "host device";
    case "nested HWPT":
      return idle(object, used) ? "kept, not attached" : "guest's stage 1";
    case "HWPT":
      return "stage 2";
    case "IOAS":
      return "guest memory";
    case "vEVENTQ":
      return "faults to the VM";
    case "vIOMMU":
      return "the guest's IOMMU";
    default:
      return "";
  }
}

function sentenceOf(object: Drawn, objects: Objects): string {
  const name = (key: string): string => {
    const known = objects.get(key);
    return known === undefined ? "something that is gone" : `${known.kind} ${known.id}`;
  };
  if (object.kind === GUESTS)
    return `the guest's ${object.name} is ${object.on.map(name).join()}; the kernel has no vDEVICE for it, the VMM alone knows`;
  const on = object.on.length === 0 ? "" : ` on ${object.on.map(name).join(" and ")}`;
  const attached = object.attached === undefined ? "" : `, attached to ${name(object.attached)}`;
  return `${object.kind} ${object.id}${object.name === "" ? "" : ` ${object.name}`}${on}${attached}`;
}

function pathOf(from: Node, to: Node): string {
  const down = to.y > from.y;
  const [y1, y2] = down
    ? [from.y + BOX.height / 2, to.y - BOX.height / 2]
    : [from.y - BOX.height / 2, to.y + BOX.height / 2];
  // Past a layer in between, around what stands there.
  const far = Math.abs(to.y - from.y) > ROW * 1.5 && Math.abs(to.x - from.x) < 10;
  const bow = far ? BOX.width + 16 : 0;
  return `M${from.x} ${y1} C${from.x + bow} ${(y1 + y2) / 2} ${to.x + bow} ${(y1 + y2) / 2} ${to.x} ${y2}`;
}
