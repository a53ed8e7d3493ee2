// CPUs as a debugger sees them: registers by number, in the order of the target description that GDB is given (GDB manual, "Target Descriptions": numbers
// count up from 0 through the features), and where a virtual address leads.

export interface Register {
  readonly name: string;
  readonly bits: 32 | 64 | 128;
  /** A type of the target description; an integer of its size when left out. */
  readonly type?: string;
  readonly group?: "general" | "float" | "vector" | "system";
  read(cpu: number): bigint;
  /** Absent: a debugger only reads it. */
  write?(cpu: number, value: bigint): void;
}

export interface RegisterFeature {
  /** As GDB knows it ("Standard Target Features"). */
  readonly name: string;
  /** XML of types that its registers have. */
  readonly types?: string;
  readonly registers: readonly Register[];
}

export interface DebuggedCpu {
  /** GDB's name of the architecture. */
  readonly architecture: string;
  readonly features: readonly RegisterFeature[];
  /** Guest-physical address of a virtual one by the CPU's tables, whatever they permit; null: it leads nowhere. Nothing is stored by looking. */
  translate(cpu: number, address: bigint): bigint | null;
  /** Instructions are to be seen in what was written to RAM. */
  codeChanged(): void;
}

export function registersOf(cpu: DebuggedCpu): readonly Register[] {
  return cpu.features.flatMap(({ registers }) => registers);
}

/** The target description: target.xml. */
export function targetDescription({ architecture, features }: DebuggedCpu): string {
  const lines = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', '<target version="1.0">'];
  lines.push(`<architecture>${architecture}</architecture>`);
  for (const { name, types, registers } of features) {
    lines.push(`<feature name="${name}">`);
    if (types !== undefined) lines.push(types);
    for (const register of registers) {
      const type = register.type === undefined ? "" : ` type="${register.type}"`;
      const group = register.group === undefined ? "" : ` group="${register.group}"`;
      lines.push(`<reg name="${register.name}" bitsize="${register.bits}"${type}${group}/>`);
    }
    lines.push("</feature>");
  }
  return [...lines, "</target>", ""].join("\n");
}
