package netns_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pqlab/internal/hygiene"
	"pqlab/internal/rootless"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "tests that need namespaces will be skipped:", err)
	}
	os.Exit(tidy(m))
}

// tidy runs the tests and fails them if they leave anything on the machine or in this process.
func tidy(m *testing.M) int {
	owner := hygiene.Self()
	before, err := hygiene.Take()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	left, err := hygiene.Settled(ctx, before, owner)
	if err != nil || left != nil {
		fmt.Fprintln(os.Stderr, "left behind:", strings.Join(left, "\n"), err)
		return 1
	}
	return code
}
