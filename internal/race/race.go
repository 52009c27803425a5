//go:build race

// Package race says whether the race detector watches this program. It makes computing take five to ten times as long, and finds
// no other races in more of the same. So tests that only compute do a part of it under the detector, and all of it without: make
// test runs them in both ways (make whole).
package race

// Enabled says whether the race detector watches this program.
const Enabled = true
