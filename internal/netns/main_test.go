package netns_test

import (
	"fmt"
	"os"
	"testing"

	"pqlab/internal/hygiene"
	"pqlab/internal/rootless"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "tests that need namespaces will be skipped:", err)
	}
	os.Exit(hygiene.Tidy(m.Run))
}
