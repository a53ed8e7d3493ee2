// Where a hart of the tiny instruction set keeps its state (the front end's parts of engine/assembly/layout.ts), and its operations.
export const CALLS = 0x180; // u32, machine: how often step() ran; says that translated code really did without it

export const R = 0x1000; // 16 × u64
export const FLAG_A = 0x1080; // u64, the operands of the last cmp: conditions are made of them where they are used
export const FLAG_B = 0x1088; // u64
export const MODE = 0x1090; // u32, 0 user, 1 kernel
export const VECTOR = 0x1098; // u64
export const ELR = 0x10a0; // u64, pc of the last exception
export const CAUSE = 0x10a8; // u64
export const FAR = 0x10b0; // u64
export const SAVED_MODE = 0x10b8; // u32
export const TABLE = 0x10c0; // u64, guest-physical; 0: no translation
export const DEADLINE = 0x10c8; // u64, ticks; all ones: no timer
export const MASKED = 0x10d0; // u32, interrupts are off
export const SAVED_MASKED = 0x10d4; // u32
export const SWITCHES = 0x10d8; // u32, how often switched() was called

// even numbers from engine/assembly/layout.ts's FIRST_OPERATION on
export const ILLEGAL = 6;
export const MOVI = 8;
export const ADD = 10;
export const CMP = 12;
export const B = 14;
export const B_FAR = 16;
export const BEQ = 18;
export const BLT = 20;
export const BL = 22;
export const BL_FAR = 24;
export const BR = 26;
export const LDR = 28;
export const STR = 30;
export const MIX = 32;
export const SYSTEM = 34;

export const FAULT_TRANSLATION = 1;
export const FAULT_PERMISSION = 2;
export const FAULT_BUS = 3;
export const FAULT_ALIGNMENT = 4;
export const FAULT_ILLEGAL = 5;
export const INTERRUPT = 6;
