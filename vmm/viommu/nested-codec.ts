// How a kind's stage 1 goes over iommufd: what the shared half (vmm/vfio) must know of an architecture, and nothing else. Three shapes:
//
//   "viommu"  stage 1 and invalidation on a vIOMMU object, events on its vEVENTQ (RISC-V, SMMUv3)
//   "hwpt"    stage 1 and invalidation on the nested HWPT itself, on the second stage; no vIOMMU, no event queue (VT-d)
//   "mapped"  no nesting: the guest's domains are IOASes of their own, filled by map and unmap (virtio-iommu)
//
// Numbers are the kernel's (host/uapi); bytes are the kernel's layouts, made and read by the kind alone.

import type { HwInfoReply } from "./host-port.ts";

interface Stage1Formats {
  /** HWPT_ALLOC data type of a nested stage 1. */
  readonly stage1Type: number;
  /** HWPT_INVALIDATE data type, and bytes of an entry: the guest's commands as the kind forwards them. */
  readonly invalidationType: number;
  readonly invalidationBytes: number;
  /** True if a stage 1 with this data can have page requests answered: its HWPT gets a fault queue. */
  wantsPageRequests(stage1: Uint8Array): boolean;
}

export interface ViommuNesting extends Stage1Formats {
  readonly shape: "viommu";
  /** VIOMMU_ALLOC type that suits the hardware; `hardware` asks for its GET_HW_INFO reply (null: the host does not say). */
  viommuType(hardware: () => HwInfoReply | null): number;
  /** Stage-1 data that lets nothing through, and that lets all through to the second stage: so that events are relayed in every disposition. */
  readonly blocked: Uint8Array;
  readonly bypass: Uint8Array;
  /** vEVENTQ type and bytes of a record. */
  readonly eventType: number;
  readonly eventBytes: number;
  /**
   * The host tells the translations of vIOMMUs apart by the second stage that they are on, so that each needs one of its own. Left out: by themselves.
   */
  readonly ownParent?: true;
  /**
   * Of a batch with a command that the host refuses (EIO), it counts commands as done that it has not issued: they have to be given to it again.
   * Left out: what is counted was done.
   */
  readonly countsUnissued?: true;
  /** Command queues of the guest's own that the hardware executes; absent: the kind has none. */
  readonly hardwareQueues?: HardwareQueueFormat;
}

export interface HardwareQueueFormat {
  /** GET_HW_INFO type of hardware with queues, and whether these data are of hardware that suits. Absent: `ViommuNesting.viommuType` decides. */
  readonly infoType?: number;
  suits?(info: Uint8Array): boolean;
  /** VIOMMU_ALLOC type of a vIOMMU with hardware queues. */
  readonly viommuType: number;
  /** HW_QUEUE_ALLOC type. */
  readonly queueType: number;
  /** Bytes of the VIOMMU_ALLOC data, and where in them the kernel says how to map the page of queue registers. */
  readonly replyBytes: number;
  page(reply: Uint8Array): { readonly offset: bigint; readonly length: number };
  /** vEVENTQ type of events that say that queues stand at errors; absent: the kind has none. */
  readonly eventType?: number;
}

export interface HwptNesting extends Stage1Formats {
  readonly shape: "hwpt";
  /** PASIDs have stage 1s of their own in the host (ViommuHost.setNested with a PASID): all HWPTs of a device are allocated for use with them. */
  readonly ofPasids?: true;
  /** vIOMMU and vEVENTQ types by which some hosts report faults, and bytes of a record; others have neither. Absent: the kind has none. */
  readonly faults?: {
    /** Whether a host has them, by its GET_HW_INFO data. */
    offered(info: Uint8Array): boolean;
    readonly viommuType: number;
    readonly eventType: number;
    readonly eventBytes: number;
  };
}

export interface NoNesting {
  readonly shape: "mapped";
}

export type NestedCodec = ViommuNesting | HwptNesting | NoNesting;
