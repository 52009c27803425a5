package xfrm

import (
	"fmt"
	"os"
	"testing"

	"pqlab/internal/rootless"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "xfrm: tests need network namespaces:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
