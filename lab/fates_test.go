package lab

import (
	"errors"
	"testing"

	"pqlab/links"
	"pqlab/topology"
)

// Packets that verify a link would be a part of its trace.
func TestFatesOfVerifiedLinks(t *testing.T) {
	t.Parallel()
	for _, f := range []links.Fates{{Record: t.TempDir()}, {Replay: t.TempDir()}} {
		if err := check(&topology.Plan{Verify: true}, Options{Fates: f}); !errors.Is(err, ErrVerifiedFates) {
			t.Error(err)
		}
		if err := check(&topology.Plan{}, Options{Fates: f}); err != nil {
			t.Error(err)
		}
	}
}
