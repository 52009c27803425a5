package race

import "testing"

// Times is how often a test does something: all, and under the race detector few.
func Times(all, few int) int {
	if Enabled {
		return min(all, few)
	}
	return all
}

// First is all cases of a test, and under the race detector the first few of them.
func First[T any](cases []T, few int) []T { return cases[:Times(len(cases), few)] }

// Skip skips, under the race detector, a test that computes for long in one goroutine and does nothing else.
func Skip(t testing.TB) {
	t.Helper()
	if Enabled {
		t.Skip("only computes: make whole runs it, without the race detector")
	}
}
