/** What went wrong with a file, on one line. */

const READABLE = "a readable file";

/**
 * One line for an error of the file system, instead of its own. `what` was expected of the path: what is not to be read
 * is to be written.
 */
export function fileError(path: string, error: NodeJS.ErrnoException, what: string = READABLE): Error {
  const reasons: Record<string, string> = {
    ENOENT: "no such file",
    EISDIR: "a folder",
    EACCES: what === READABLE ? "no permission to read it" : "no permission to write it",
    ENOTDIR: "a path through something that is no folder",
    EEXIST: "a file",
    ENOSPC: "a full disk",
    EROFS: "a disk that is only for reading",
  };
  return new Error(`${path}: expected ${what}, got ${reasons[error.code ?? ""] ?? error.message}`);
}
