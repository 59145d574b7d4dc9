/** The figures of docs/EVALUATION.md on the larger public sets. (The daily tests judge the smallest.) */

import { test } from "vitest";
import { expectFigures } from "../cli/eval/figures.ts";

test.each(["xstest", "openai-moderation"])("docs/EVALUATION.md has the figures of %s", expectFigures);
