// One iommufd context: what open("/dev/iommu") makes (Linux: struct iommufd_ctx). Its file's references are its lifetime: the
// descriptors, every open event file of it, every bound device, every external access and every mapping hold one.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import type { CallContext, MmapRequest, UserAddress } from "../file.ts";
import { type FileMapping, OpenFile } from "../file.ts";
import type { IommuGroup } from "../iommu/group.ts";
import type { DeviceGroup } from "./device-group.ts";
import type { IommufdEnvironment } from "./environment.ts";
import { ExportedRegions } from "./exported-regions.ts";
import type { Ioas } from "./ioas.ts";
import { type NamedTable, restoreMappings, savedMappings } from "./mappings-state.ts";
import { type IommufdObject, nameOfObject, ObjectTable, type ObjectType } from "./object-table.ts";
import { SoftwareMsi } from "./software-msi.ts";

/** How a context turns a request into an answer: ioctl-table.ts. */
export interface RequestTable {
  dispatch(context: IommufdContext, call: CallContext, request: number, argument: UserAddress): number;
  nameOf(context: IommufdContext, request: number): string | null;
  fieldsOf(call: CallContext, request: number, argument: bigint): Record<string, bigint | number | string>;
}

export class IommufdContext implements Stateful {
  readonly environment: IommufdEnvironment;
  readonly objects: ObjectTable;
  readonly file: IommufdFile;
  /** Accounting of pages mapped by processes without CAP_IPC_LOCK (OPTION RLIMIT_MODE; "memory" is VFIO's way). */
  accountMode: "user" | "memory";
  /** The IOAS that VFIO's requests work on. Not a reference: removing that IOAS clears it. */
  compatibilityIoas: Ioas | null = null;
  noIommuMode = false;
  /** What the context knows of the iommu groups of its devices. */
  readonly deviceGroups = new Map<IommuGroup, DeviceGroup>();
  readonly regions = new ExportedRegions();
  readonly softwareMsi = new SoftwareMsi();

  constructor(environment: IommufdEnvironment, file: IommufdFile, accountMode: "user" | "memory") {
    this.environment = environment;
    this.objects = new ObjectTable(environment.live);
    this.file = file;
    this.accountMode = accountMode;
    environment.live.created("iommufd context");
  }

  /** The visible object of a type with this id, or null. */
  find<T extends IommufdObject>(id: number, type: ObjectType): T | null {
    const object = this.objects.find(id);
    return object !== null && object.type === type ? (object as T) : null;
  }

  release(): void {
    this.objects.release();
    if (this.deviceGroups.size > 0) throw new Error("a context was released with devices bound");
    this.environment.live.destroyed("iommufd context");
  }

  // --- state ---

  *#tables(): Generator<NamedTable> {
    for (const object of this.objects) if (object.type === "ioas") yield [nameOfObject(object), (object as Ioas).table];
  }

  saveState(): StateRecord {
    return {
      accountMode: this.accountMode,
      noIommuMode: this.noIommuMode,
      compatibilityIoas: this.compatibilityIoas?.id ?? 0,
      mappings: savedMappings(this.#tables(), this.environment.names),
    };
  }

  restoreState(state: StateReader): void {
    this.accountMode = state.text("accountMode") === "memory" ? "memory" : "user";
    this.noIommuMode = state.boolean("noIommuMode");
    this.compatibilityIoas = this.find(state.number("compatibilityIoas"), "ioas");
    const { names, injector } = this.environment;
    restoreMappings(this.#tables(), state.record("mappings"), names, injector);
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["objects", this.objects];
    for (const group of this.deviceGroups.values()) yield [`group ${group.group.id}`, group];
    yield ["exported regions", this.regions];
    yield ["software MSI", this.softwareMsi];
  }
}

/** An open /dev/iommu (or a /dev/vfio/vfio that iommufd serves). */
export class IommufdFile extends OpenFile {
  readonly path: string;
  readonly context: IommufdContext;
  readonly #table: RequestTable;

  constructor(path: string, environment: IommufdEnvironment, table: RequestTable, accountMode: "user" | "memory") {
    super();
    this.path = path;
    this.context = new IommufdContext(environment, this, accountMode);
    this.#table = table;
  }

  override ioctl(call: CallContext, request: number, argument: bigint): number {
    return this.#table.dispatch(this.context, call, request, argument);
  }

  override ioctlAt(call: CallContext, request: number, address: number): number {
    return this.#table.dispatch(this.context, call, request, address);
  }

  override ioctlName(request: number): string | null {
    return this.#table.nameOf(this.context, request);
  }

  override ioctlFields(call: CallContext, request: number, argument: bigint): Record<string, bigint | number | string> {
    return this.#table.fieldsOf(call, request, argument);
  }

  override mmap(_call: CallContext, request: MmapRequest): FileMapping | number {
    return this.context.regions.map(request, this);
  }

  protected override release(): void {
    this.context.release();
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["context", this.context];
  }
}
