// What scenarios get of the RISC-V IOMMU beside the words of every kind: records, commands and contexts by name.

export type { CommandName } from "../../../host/arch/riscv/commands.ts";
export {
  CAUSE_NAMES,
  causeName,
  describeFaultRecord,
  type FaultRecord,
} from "../../../host/arch/riscv/fault-records.ts";
export type { PageRequestRecord } from "../../../host/arch/riscv/page-requests.ts";
export { type ContextWords, GuestIommu } from "./guest/iommu-driver.ts";
export { Stage1, type Stage1MapOptions, type Stage1Mode } from "./guest/stage1.ts";
