// Where an AArch64 hart's state lies, in the parts of the memory that the engine leaves to an instruction set (engine/assembly/layout.ts). Plain number
// constants, legal in AssemblyScript and TypeScript.

// --- machine: FRONT_END_MACHINE … 0x1ff --------------------------------------------------------------------------------------------------
export const FEATURES = 0x180; // u32, FEATURE_ bits

export const FEATURE_FP = 1; // floating point and Advanced SIMD
export const FEATURE_CRC32 = 2;

// --- hart: HART_STATE … ENGINE_STATE -------------------------------------------------------------------------------------------------------
// General-purpose registers as instructions name them: register 31 is one of the three words behind X30, and decoding says which.
export const X = 0x1000; // 31 × u64
export const SP = 0x10f8; // u64, the stack pointer of the current level and SPSel
export const ZERO = 0x1100; // u64, what XZR reads: 0, never written
export const SINK = 0x1108; // u64, where what is written to XZR goes

// PSTATE
export const NZCV = 0x1110; // u32 with a u32 of zero behind it: N 8, Z 4, C 2, V 1
export const DAIF = 0x1248; // u32, D 8, A 4, I 2, F 1
export const EL = 0x1118; // u32, 0 or 1
export const SPSEL = 0x111c; // u32
export const UNPRIVILEGED = 0x1120; // u32, 1 while LDTR and STTR access memory as EL0
export const IRQ = 0x1124; // u32, the interrupt controller signals an interrupt
export const TIMER_ROUTED = 0x1128; // u32, it would signal one as soon as the virtual timer fires

export const TLB_HALVES = 0x112c; // u32, what the TLBs may hold: 1 of TTBR0's half, 2 of TTBR1's half for one ASID only

export const SP_EL0 = 0x1130; // u64; valid while SP is another's
export const SP_EL1 = 0x1138; // u64; valid while SP is SP_EL0
export const ELR_EL1 = 0x1140; // u64
export const SPSR_EL1 = 0x1148; // u64
export const ESR_EL1 = 0x1150; // u64
export const FAR_EL1 = 0x1158; // u64
export const VBAR_EL1 = 0x1160; // u64
export const SCTLR_EL1 = 0x1168; // u64
export const TCR_EL1 = 0x1170; // u64
export const TTBR0_EL1 = 0x1178; // u64
export const TTBR1_EL1 = 0x1180; // u64
export const MAIR_EL1 = 0x1188; // u64
export const CPACR_EL1 = 0x1190; // u64
export const CONTEXTIDR_EL1 = 0x1198; // u64
export const TPIDR_EL0 = 0x11a0; // u64
export const TPIDRRO_EL0 = 0x11a8; // u64
export const TPIDR_EL1 = 0x11b0; // u64
export const CNTKCTL_EL1 = 0x11b8; // u64
export const CNTV_CVAL_EL0 = 0x11c0; // u64
export const CNTV_CTL_EL0 = 0x11c8; // u64: ENABLE 1, IMASK 2
export const CNTP_CVAL_EL0 = 0x11d0; // u64
export const CNTP_CTL_EL0 = 0x11d8; // u64
export const AFSR0_EL1 = 0x11e0; // u64
export const AFSR1_EL1 = 0x11e8; // u64
export const AMAIR_EL1 = 0x11f0; // u64
export const PAR_EL1 = 0x11f8; // u64
export const MDSCR_EL1 = 0x1200; // u64
export const CSSELR_EL1 = 0x1208; // u64
export const FPCR = 0x1210; // u64
export const OSLSR_EL1 = 0x1220; // u64
export const MPIDR_EL1 = 0x1228; // u64

/** The local exclusive monitor: host address of the reserved bytes, + log2 of their number in bits 63:56; all ones if open. And what they held. */
export const MONITOR = 0x1230; // u64
export const MONITOR_LOW = 0x1238; // u64
export const MONITOR_HIGH = 0x1240; // u64

export const V = 0x1400; // 32 × 16 bytes
export const LANES = 0x1600; // 16 bytes, where a vector result is put together
export const QC = 0x1610; // u32, FPSR.QC: something has saturated
