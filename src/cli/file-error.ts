/** Errors of the file system, as one line for people. */

const READABLE = "a readable file";

/**
 * Replaces the message of the file system. `what` was expected of the path; anything but a readable file was to be
 * written.
 */
export function fileError(path: string, error: NodeJS.ErrnoException, what: string = READABLE): Error {
  const reasons: Record<string, string> = {
    ENOENT: "no such file",
    EISDIR: "a folder",
    EACCES: what === READABLE ? "no permission to read it" : "no permission to write it",
    ENOTDIR: "a path through something that is no folder",
    EEXIST: "a file",
    ENOSPC: "a full disk",
    EROFS: "a read-only disk",
  };
  return new Error(`${path}: expected ${what}, got ${reasons[error.code ?? ""] ?? error.message}`);
}
