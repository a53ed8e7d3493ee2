// The library: what `import … from "nestbox"` gives.
//
// Machines, hosts and processes are disposable; the reference lets a project compile against them whose target is older than that.
/// <reference lib="esnext.disposable" preserve="true" />

export type { Trace, TracedEvent, TraceSink } from "../../host/base/trace.ts";
export { JsonLinesSink } from "../../host/base/trace-json.ts";
export { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
export { type HostDescription, HostDescriptionError, parseHost } from "../../host/description.ts";
export * as EDU from "../../host/devices/edu/registers.ts";
export { NO_PASID } from "../../host/devices/ports.ts";
export { Host } from "../../host/host.ts";
export type { Walk, WalkStep } from "../view/walks.ts";
export type {
  FaultWord,
  FirstStage,
  GuestDriver,
  GuestStage1,
  MapOptions,
  PageAnswer,
  PageRequest,
} from "../viommu/guest-driver.ts";
export type { ViommuKindName } from "../viommu/kinds.ts";
export * from "../viommu/riscv/scenario.ts";
export * from "../viommu/smmuv3/scenario.ts";
export * from "../viommu/vtd/scenario.ts";
export { ScenarioContext } from "./context.ts";
export { EduDriver, type EduTransfer } from "./edu.ts";
export { type DmaOptions, type DmaResult, ScenarioEndpoint } from "./endpoint.ts";
export { GuestRam } from "./guest-memory.ts";
export { ScenarioPlatformDevice } from "./platform-device.ts";
export { runScenario, type ScenarioResult, type ScenarioRunOptions } from "./run-scenario.ts";
export { ExpectationFailed, isScenario, type Scenario, type ScenarioOptions, scenario } from "./scenario.ts";
export type { TranslationOptions } from "./translation.ts";
export {
  type ExpectedFault,
  MSI_WINDOW,
  ScenarioDevice,
  ScenarioVm,
  type VmOptions,
} from "./vm.ts";
