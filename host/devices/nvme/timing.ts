// How long the model takes, in ns of virtual time. One server carries out I/O commands one after the other (another one admin
// commands): a command occupies it for its service time; then the answer takes a fixed latency. So one outstanding 4 KiB read takes about 7 µs, and many together come
// at one per 1.5 µs; large transfers move 8 GB/s.

/** From a doorbell to the fetch of what it announced. */
export const FETCH_NS = 200;
/** From the end of service to the completion entry. */
export const LATENCY_NS = 5_000;
/** Service of any command, */
export const SERVICE_NS = 1_000;
/** and more for each 4 KiB it moves, */
export const SERVICE_NS_PER_PAGE = 500;
/** or for a flush. */
export const FLUSH_NS = 20_000;
/** From CC.EN to CSTS.RDY, and from CC.SHN to a complete shutdown. */
export const READY_NS = 100_000;
