// What scenarios get of the SMMUv3 beside the words of every kind: events, commands and structures by name.

export type { CommandName as SmmuCommandName } from "../../../host/arch/smmuv3/commands.ts";
export { EVENT_NAMES, type EventRecord, eventName } from "../../../host/arch/smmuv3/event-records.ts";
export {
  type ContextFormat,
  ContextTable,
  type DescriptorFields,
  descriptorOf,
} from "./guest/context-table.ts";
export type { GuestEvent, ReceivedPageRequest } from "./guest/received-records.ts";
export { GuestSmmu } from "./guest/smmu-driver.ts";
export {
  Stage1 as SmmuStage1,
  type Stage1MapOptions as SmmuMapOptions,
  type Stage1Mode as SmmuStage1Mode,
} from "./guest/stage1.ts";
export type { StreamFields } from "./guest/stream-table.ts";
