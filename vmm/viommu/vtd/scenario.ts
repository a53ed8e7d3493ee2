// What scenarios get of VT-d beside the words of every kind: faults, descriptors and structures by name.

export { faultReasonName } from "../../../host/arch/vtd/fault-reasons.ts";
export type { DescriptorName as VtdDescriptorName } from "../../../host/arch/vtd/invalidation-descriptors.ts";
export {
  Stage1 as VtdStage1,
  type Stage1MapOptions as VtdMapOptions,
  type Stage1Mode as VtdStage1Mode,
} from "./guest/stage1.ts";
export { type GuestFaultRecord, GuestVtd, type VtdContext } from "./guest/vtd-driver.ts";
