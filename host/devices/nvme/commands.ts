// Names of NVMe 1.4: opcodes, status codes, features, log pages, and where the fields of commands and completions stand.
// A status is the 15-bit field of a completion without the phase tag (§4.6.1): code 7:0, code type 10:8, do-not-retry 14.

// Admin opcodes (§5, figure 139).
export const DELETE_SUBMISSION_QUEUE = 0x00;
export const CREATE_SUBMISSION_QUEUE = 0x01;
export const GET_LOG_PAGE = 0x02;
export const DELETE_COMPLETION_QUEUE = 0x04;
export const CREATE_COMPLETION_QUEUE = 0x05;
export const IDENTIFY = 0x06;
export const ABORT = 0x08;
export const SET_FEATURES = 0x09;
export const GET_FEATURES = 0x0a;
export const ASYNCHRONOUS_EVENT_REQUEST = 0x0c;

// NVM opcodes (§6, figure 346).
export const FLUSH = 0x00;
export const WRITE = 0x01;
export const READ = 0x02;
export const COMPARE = 0x05;
export const WRITE_ZEROES = 0x08;
export const DATASET_MANAGEMENT = 0x09;

export const DO_NOT_RETRY = 0x4000;

// Generic command status (§4.6.1.2.1).
export const SUCCESS = 0x000;
export const INVALID_OPCODE = 0x001 | DO_NOT_RETRY;
export const INVALID_FIELD = 0x002 | DO_NOT_RETRY;
export const DATA_TRANSFER_ERROR = 0x004;
export const INTERNAL_ERROR = 0x006;
export const ABORT_REQUESTED = 0x007;
export const ABORTED_BY_QUEUE_DELETION = 0x008;
export const INVALID_NAMESPACE = 0x00b | DO_NOT_RETRY;
export const COMMAND_SEQUENCE_ERROR = 0x00c | DO_NOT_RETRY;
export const PRP_OFFSET_INVALID = 0x013 | DO_NOT_RETRY;
export const LBA_OUT_OF_RANGE = 0x080 | DO_NOT_RETRY;

// Command specific status (§4.6.1.2.2).
export const COMPLETION_QUEUE_INVALID = 0x100 | DO_NOT_RETRY;
export const INVALID_QUEUE_IDENTIFIER = 0x101 | DO_NOT_RETRY;
export const INVALID_QUEUE_SIZE = 0x102 | DO_NOT_RETRY;
export const ASYNCHRONOUS_EVENT_LIMIT_EXCEEDED = 0x105 | DO_NOT_RETRY;
export const INVALID_INTERRUPT_VECTOR = 0x108 | DO_NOT_RETRY;
export const INVALID_LOG_PAGE = 0x109 | DO_NOT_RETRY;
export const INVALID_QUEUE_DELETION = 0x10c | DO_NOT_RETRY;
export const FEATURE_NOT_SAVEABLE = 0x10d | DO_NOT_RETRY;
export const FEATURE_NOT_CHANGEABLE = 0x10e | DO_NOT_RETRY;

// Media and data integrity errors (§4.6.1.2.3).
export const WRITE_FAULT = 0x280;
export const UNRECOVERED_READ_ERROR = 0x281;
export const COMPARE_FAILURE = 0x285;

// Feature identifiers (§5.21.1).
export const FEATURE_ARBITRATION = 0x01;
export const FEATURE_POWER_MANAGEMENT = 0x02;
export const FEATURE_TEMPERATURE_THRESHOLD = 0x04;
export const FEATURE_ERROR_RECOVERY = 0x05;
export const FEATURE_VOLATILE_WRITE_CACHE = 0x06;
export const FEATURE_NUMBER_OF_QUEUES = 0x07;
export const FEATURE_INTERRUPT_COALESCING = 0x08;
export const FEATURE_INTERRUPT_VECTOR = 0x09;
export const FEATURE_WRITE_ATOMICITY = 0x0a;
export const FEATURE_ASYNCHRONOUS_EVENTS = 0x0b;

// Log pages (§5.14.1).
export const LOG_ERROR = 0x01;
export const LOG_HEALTH = 0x02;
export const LOG_FIRMWARE = 0x03;

export const NAMESPACE = 1;
export const EVERY_NAMESPACE = 0xffffffff;

/** Bytes of a submission and a completion queue entry (CC.IOSQES 6, CC.IOCQES 4). */
export const COMMAND_BYTES = 64;
export const COMPLETION_BYTES = 16;

/** Memory page size: CC.MPS 0 is the only one supported. */
export const PAGE_BYTES = 4096;
/** Maximum data transfer size: 2^8 pages (Identify Controller, MDTS). */
export const TRANSFER_PAGES_LOG2 = 8;
export const TRANSFER_BYTES = PAGE_BYTES << TRANSFER_PAGES_LOG2;
