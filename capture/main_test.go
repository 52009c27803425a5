package capture

import (
	"fmt"
	"os"
	"testing"

	"pqlab/internal/rootless"
)

// TestMain lets an ordinary user run the tests too.
func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "the tests of capture need network namespaces:", err)
		os.Exit(3)
	}
	os.Exit(m.Run())
}
