// The monitor's commands, as data: what each is called, what it takes, and what a person is told of it. Requests are read by these shapes
// (request.ts), help and completion are made of them, and verbs of the command line that do the same to a recorded machine take their options from here.

export interface OptionShape {
  readonly name: string;
  /** What stands for its value: "bdf"; left out: a flag. */
  readonly value?: string;
  readonly type: "flag" | "text" | "number" | "address";
  readonly about: string;
  readonly required?: true;
}

export interface OperandShape {
  readonly name: string;
  readonly type: "text" | "number";
  readonly about: string;
  readonly required?: true;
  /** Any number of them; the last operand only. */
  readonly many?: true;
}

export interface CommandShape {
  readonly name: string;
  readonly about: string;
  readonly operands: readonly OperandShape[];
  readonly options: readonly OptionShape[];
  /** Answered once the machine stands. */
  readonly later?: true;
}

/** A command that is answered once the machine stands. */
const later = (command: CommandShape): CommandShape => ({ ...command, later: true });

const shape = (
  name: string,
  about: string,
  operands: readonly OperandShape[] = [],
  options: readonly OptionShape[] = [],
): CommandShape => ({ name, about, operands, options });

export const WALK_OPTIONS = {
  iova: { name: "iova", value: "address", type: "address", about: "I/O virtual address" },
  pasid: { name: "pasid", value: "n", type: "number", about: "PASID of the request" },
  write: { name: "write", type: "flag", about: "a write" },
  why: { name: "why", type: "flag", about: "explain a fault in sentences, with the section of the specification" },
} as const satisfies Record<string, OptionShape>;

export const INSPECT_PATH: OperandShape = {
  name: "path",
  type: "text",
  about: "only this part, such as vm/viommus/viommu0",
};

export const COMMANDS = [
  shape("help", "the commands, or what one takes", [{ name: "command", type: "text", about: "which" }]),
  shape("status", "running or paused, and where"),
  shape("pause", "stop before the next instruction (a component guest: at its next trap)"),
  shape("continue", "run on"),
  later(
    shape(
      "step",
      "do one instruction (a component guest: up to its next trap), or N, and stop",
      [{ name: "n", type: "number", about: "how many; default 1" }],
      [{ name: "event", type: "flag", about: "events of the trace, not instructions" }],
    ),
  ),
  later(
    shape("until", "run until the trace has an event of this type, and stop behind it", [
      {
        name: "type",
        type: "text",
        required: true,
        about: "mmio, command, ioctl, attach, group, walk, dma, fault, injection, irq",
      },
    ]),
  ),
  later(
    shape("goto", "of a replay: stand behind what brought this event of the trace", [
      { name: "event", type: "number", required: true, about: "its number (seq)" },
    ]),
  ),
  later(
    shape("back", "of a replay: stand one event of the trace earlier, or N", [
      { name: "n", type: "number", about: "how many events; default 1" },
    ]),
  ),
  shape("inspect", "the machine as a tree", [INSPECT_PATH]),
  shape("ids", "who is who: guest BDF and device id, vDEVICE, host BDF and device id, iommu group"),
  shape("caps", "the guest-visible IOMMUs' capabilities: host bit, guest bit, and why"),
  shape(
    "walk",
    "what the tables say now of an access by a device: every load, and where it fails; and what the IOTLB holds; nothing changes",
    [],
    [
      { name: "device", value: "bdf", type: "text", required: true, about: "the guest's device" },
      { ...WALK_OPTIONS.iova, required: true },
      WALK_OPTIONS.pasid,
      WALK_OPTIONS.write,
      WALK_OPTIONS.why,
    ],
  ),
  shape("device-add", "plug a device of the host in", [
    { name: "assignment", type: "text", required: true, about: "HOST@GUEST[/NAME], as boot --assign takes it" },
  ]),
  shape("device-remove", "unplug a device", [
    { name: "device", type: "text", required: true, about: "the guest's device" },
  ]),
  shape("inject", "make the host fail by these rules from now on, and no longer by earlier ones; none: it is sound", [
    { name: "rule", type: "text", many: true, about: "as boot --inject takes them" },
  ]),
  shape("quit", "end the machine"),
] as const;

export type CommandName = (typeof COMMANDS)[number]["name"];

export function shapeOf(name: string): CommandShape | undefined {
  return COMMANDS.find((command) => command.name === name);
}

/** "walk --device <bdf> --iova <address> [--pasid <n>] …". */
export function usageOf({ name, operands, options }: CommandShape): string {
  const words = [name];
  for (const option of options) {
    const text = option.value === undefined ? `--${option.name}` : `--${option.name} <${option.value}>`;
    words.push(option.required === true ? text : `[${text}]`);
  }
  for (const operand of operands) {
    const text = operand.many === true ? `${operand.name}...` : operand.name;
    words.push(operand.required === true ? `<${text}>` : `[${text}]`);
  }
  return words.join(" ");
}

/** Lines: all commands, or one with what it takes. */
export function helpOf(command?: CommandShape): string[] {
  if (command === undefined) return COMMANDS.map(({ name, about }) => `${name.padEnd(14)} ${about}`);
  const { operands, options, about } = command;
  return [
    usageOf(command),
    `  ${about}`,
    ...operands.map((operand) => `  ${operand.name.padEnd(12)} ${operand.about}`),
    ...options.map((option) => `  --${option.name.padEnd(10)} ${option.about}`),
  ];
}

/** What a line may go on with: names of commands for its first word, options of its command behind it. */
export function completionsOf(line: string): { readonly word: string; readonly candidates: readonly string[] } {
  const words = line.trimStart().split(/\s+/);
  const word = words.at(-1) ?? "";
  const command = words.length > 1 ? shapeOf(words[0]!) : undefined;
  const all =
    words.length <= 1
      ? COMMANDS.map(({ name }) => name as string)
      : command === undefined
        ? []
        : command.name === "help"
          ? COMMANDS.map(({ name }) => name as string)
          : command.options.map(({ name }) => `--${name}`);
  return { word, candidates: all.filter((candidate) => candidate.startsWith(word)) };
}
