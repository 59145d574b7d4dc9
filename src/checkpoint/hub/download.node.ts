/**
 * Downloads a checkpoint from the Hugging Face Hub into the cache that cache.node.ts reads. Node only; loaded only when
 * something must be downloaded.
 *
 * `@huggingface/hub` makes the calls of the Hub's API: `modelInfo` says which commit a revision is, and `listFiles`
 * what is in it, with sizes and checksums, page by page. We do not use its functions for downloading; blob.node.ts does
 * that part. `downloadFileToCacheDir` and `snapshotDownload` start every file from the beginning, compare no checksum,
 * report no progress, print to the console, and let two processes write into one file. `fileDownloadInfo` returns a
 * checksum that only the storage server vouches for. The package never gets the token: every request goes through
 * `hubFetch`, the one place that knows where it may be sent.
 */

import { copyFile, mkdir, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type ListFileEntry, listFiles, modelInfo } from "@huggingface/hub";
import { TEXT_FILES } from "../files.ts";
import { INDEX_FILE, SINGLE_FILE } from "../safetensors-sharded.ts";
import { downloadBlob, type HubFile, PATIENCE, type Patience, sizeOf } from "./blob.node.ts";
import { CachedRepo, type HubSettings } from "./cache.node.ts";
import { type HubTarget, hubFetch, InterruptedError, reason } from "./fetch.ts";
import { type HubId, type HubOptions, isCommit } from "./id.ts";
import { withLock } from "./lock.node.ts";

/** What is in the cache after a pull, and how much of it came over the network. */
export interface Pulled extends HubId {
  readonly commit: string;
  /** The snapshot's folder, which is a checkpoint folder. */
  readonly path: string;
  /** Smallest first. */
  readonly files: readonly PulledFile[];
}

export interface PulledFile {
  readonly name: string;
  readonly bytes: number;
  /** How many bytes of the file this call downloaded: 0 where it was there already. */
  readonly downloaded: number;
}

/**
 * A name from the Hub becomes a path only if it is one of `TEXT_FILES`, the index, or matches this, whatever the
 * listing says. No match has a separator, so none leads out of the folder.
 */
const WEIGHTS_FILE = /^model[\w.-]{0,200}\.safetensors$/;
/** A limit, because a listing's pages may lead in a circle. */
const MAX_ENTRIES = 10_000;

/**
 * Downloads the files that a checkpoint needs at the revision's newest commit and that the cache lacks, and nothing
 * else from the repository. The revision's ref points to the commit only once all files are there, so that an
 * interrupted update leaves the old snapshot in use. Throws Error, with a message of one line that says what to do.
 */
export async function pull(
  hub: HubId,
  settings: HubSettings,
  onProgress: HubOptions["onProgress"] = () => {},
  patience: Patience = PATIENCE,
): Promise<Pulled> {
  const repo = new CachedRepo(hub, settings);
  const known = await repo.commit(hub.revision);
  const missing = known === undefined ? undefined : await repo.missing(known);
  if (known !== undefined && missing?.length === 0 && (settings.offline || isCommit(hub.revision)))
    return cached(hub, known, repo);
  if (settings.offline) {
    const got = missing ? `a snapshot without ${missing.join(", ")}` : "nothing";
    throw new Error(`${hub.id}: expected it in the cache, since HF_HUB_OFFLINE is set, got ${got} (in ${repo.folder})`);
  }
  const target: HubTarget = { ...hub, ...settings };
  const { commit, files } = await list(target, patience).catch(error => {
    if (!(error instanceof InterruptedError)) throw error;
    const what = missing?.length === 0 ? "a complete snapshot, which HF_HUB_OFFLINE=1 uses" : "no complete snapshot";
    throw new Error(`${error.message}; offline? ${what} is in the cache (${repo.folder})`);
  });
  const totalBytes = sum(files.map(({ bytes }) => bytes));
  const onWait = (): void => onProgress({ state: "waiting", file: "", doneBytes: 0, totalBytes });
  try {
    return await withLock(repo.lock, onWait, async () => {
      const pulled = await fill(repo, target, commit, files, onProgress, patience);
      const lacking = await repo.missing(commit);
      if (lacking.length > 0)
        throw new Error(`${hub.id}: expected a checkpoint, got a repository without ${lacking.join(", ")}`);
      if (!isCommit(hub.revision)) {
        await mkdir(dirname(repo.ref(hub.revision)), { recursive: true });
        await writeFile(repo.ref(hub.revision), commit);
      }
      return { ...hub, commit, path: repo.snapshot(commit), files: pulled };
    });
  } catch (error) {
    throw diskError(repo, error as NodeJS.ErrnoException);
  }
}

/** The contents of a complete snapshot, without asking anyone. */
async function cached(hub: HubId, commit: string, repo: CachedRepo): Promise<Pulled> {
  const path = repo.snapshot(commit);
  const names = (await readdir(path)).filter(isWanted);
  const files = await Promise.all(
    names.map(async name => ({ name, bytes: (await stat(join(path, name))).size, downloaded: 0 })),
  );
  return { ...hub, commit, path, files: files.sort(bySize) };
}

function bySize(a: { readonly bytes: number }, b: { readonly bytes: number }): number {
  return a.bytes - b.bytes;
}

/**
 * The commit of a revision, and the files that a checkpoint needs at it, smallest first, so that a bad repository is
 * refused before the long part.
 */
async function list(target: HubTarget, { stallMs }: Patience): Promise<{ commit: string; files: HubFile[] }> {
  const request = (address: unknown, init?: RequestInit): Promise<Response> =>
    hubFetch(target, String(address), init?.headers as Record<string, string>, AbortSignal.timeout(stallMs));
  const hub = { hubUrl: target.endpoint, fetch: request as typeof fetch };
  try {
    const { sha } = await modelInfo({ ...hub, name: target.id, revision: target.revision, additionalFields: ["sha"] });
    if (!isCommit(String(sha)) || (isCommit(target.revision) && sha !== target.revision)) {
      throw new InterruptedError(
        `${target.id}: expected a commit from ${target.endpoint}, got none, or another than asked for`,
      );
    }
    const files = new Map<string, HubFile>();
    let entries = 0;
    for await (const entry of listFiles({ ...hub, repo: { type: "model", name: target.id }, revision: sha })) {
      if (++entries > MAX_ENTRIES)
        throw new RangeError(`${target.id}: expected at most ${MAX_ENTRIES} files, got a longer listing`);
      if (entry.type === "file" && isWanted(entry.path)) files.set(entry.path, checkEntry(entry, target));
    }
    if (!files.has("config.json") || !(files.has(SINGLE_FILE) || files.has(INDEX_FILE))) {
      throw new Error(
        `${target.id}: expected a repository with config.json and ${SINGLE_FILE} (or its shards), got ${found(files)}`,
      );
    }
    // Where the repository has both forms, the single file is read, and the shards would repeat the same weights.
    const isNeeded = ({ name }: HubFile): boolean =>
      !files.has(SINGLE_FILE) || name === SINGLE_FILE || !/safetensors/.test(name);
    return { commit: sha, files: [...files.values()].filter(isNeeded).sort(bySize) };
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError || error instanceof DOMException)) throw error;
    throw new InterruptedError(`${target.id}: expected the Hub's JSON from ${target.endpoint}, got ${reason(error)}`);
  }
}

function found(files: ReadonlyMap<string, HubFile>): string {
  return files.size > 0 ? `only ${[...files.keys()].sort().join(", ")}` : "none of its files";
}

function isWanted(name: string): boolean {
  return TEXT_FILES.includes(name) || name === INDEX_FILE || WEIGHTS_FILE.test(name);
}

/** Checks an entry of the listing. Its checksum becomes a part of a path too. */
function checkEntry({ path: name, size, oid, lfs }: ListFileEntry, { id }: HubTarget): HubFile {
  const [etag, bytes] = lfs ? [lfs.oid, lfs.size] : [oid, size];
  if (typeof etag !== "string" || !(lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(etag)) {
    throw new RangeError(
      `${id}/${name}: expected ${lfs ? "a SHA-256" : "a SHA-1"} in the Hub's listing, got something else`,
    );
  }
  if (!Number.isSafeInteger(bytes) || bytes < 0)
    throw new RangeError(`${id}/${name}: expected a size in the Hub's listing, got something else`);
  return { name, bytes, etag };
}

/** Brings every file into the snapshot. It may be there already, or among the blobs, or only on the Hub. */
async function fill(
  repo: CachedRepo,
  target: HubTarget,
  commit: string,
  files: readonly HubFile[],
  onProgress: NonNullable<HubOptions["onProgress"]>,
  patience: Patience,
): Promise<PulledFile[]> {
  const snapshot = repo.snapshot(commit);
  await mkdir(dirname(repo.blob("any")), { recursive: true });
  await mkdir(snapshot, { recursive: true });

  const onDisk = new Map<string, number>();
  for (const file of files) {
    const has =
      (await sizeOf(join(snapshot, file.name))) === file.bytes || (await sizeOf(repo.blob(file.etag))) === file.bytes;
    onDisk.set(
      file.name,
      has ? file.bytes : Math.min(file.bytes, (await sizeOf(`${repo.blob(file.etag)}.incomplete`)) ?? 0),
    );
  }
  const totalBytes = sum(files.map(({ bytes }) => bytes));
  const report = (file: HubFile, bytes: number | null): void => {
    if (bytes !== null) onDisk.set(file.name, bytes);
    onProgress({
      state: bytes === null ? "checking" : "downloading",
      file: file.name,
      doneBytes: sum([...onDisk.values()]),
      totalBytes,
    });
  };

  const pulled: PulledFile[] = [];
  for (const file of files) {
    const { name, bytes, etag } = file;
    let downloaded = 0;
    if ((await sizeOf(join(snapshot, name))) !== bytes) {
      const isNew = (await sizeOf(repo.blob(etag))) !== bytes;
      if (isNew) {
        const url = `${target.endpoint}/${target.id}/resolve/${commit}/${name}`;
        const onBytes = (done: number | null): void => report(file, done);
        downloaded = await downloadBlob(file, repo.blob(etag), { target, url, onBytes, patience });
      }
      await link(repo.blob(etag), join(snapshot, name), isNew);
    }
    pulled.push({ name, bytes, downloaded });
  }

  // Note which files the repository lacks, as huggingface_hub does, so that nobody asks for them again.
  for (const name of TEXT_FILES) {
    if (onDisk.has(name)) continue;
    await mkdir(dirname(repo.noExist(commit, name)), { recursive: true });
    await writeFile(repo.noExist(commit, name), "");
  }
  return pulled;
}

/**
 * Links the snapshot to the blob. Where links cannot be made (Windows, unless it is set up to allow them) the file
 * itself is put there.
 */
async function link(blob: string, path: string, isNew: boolean): Promise<void> {
  await rm(path, { force: true }); // it has the wrong size, or is a broken link
  try {
    await symlink(join("..", "..", "blobs", basename(blob)), path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return; // another process was faster
    // As huggingface_hub does: an older blob may be in use, so it is copied.
    if (isNew) await rename(blob, path);
    else await copyFile(blob, path);
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Explains an error of the disk in one line. Returns every other error as it is. */
function diskError({ folder }: CachedRepo, error: NodeJS.ErrnoException): Error {
  const reasons: Readonly<Record<string, string>> = {
    ENOSPC: "a full disk; the downloaded part is kept, and pulling again continues",
    EDQUOT: "a full quota; the downloaded part is kept, and pulling again continues",
    EACCES: "no permission to write",
    EPERM: "no permission to write",
    EROFS: "a read-only file system",
    ENOTDIR: "a path through something that is not a folder",
  };
  const got = reasons[error.code ?? ""];
  return got ? new Error(`${folder}: expected a folder to write to, got ${got}`) : error;
}
