package topology_test

import (
	"errors"
	"testing"
	"time"

	"pqlab/topology"
)

// No link and no flow is faster than any Ethernet, however it was made.
func TestFastest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate topology.Rate
		ok   bool
	}{{1600 * topology.Gbit, true}, {1600*topology.Gbit + 1, false}} {
		pair := func() *topology.Builder { return topology.New("x").Host("a").Host("b") }
		for what, b := range map[string]*topology.Builder{
			"link":  pair().Ethernet("a", "b", c.rate),
			"trace": pair().Ethernet("a", "b", topology.RateTrace(step(time.Second, topology.Mbit), step(time.Second, c.rate))),
			"flow":  pair().Ethernet("a", "b").UDP("a", "b", c.rate),
		} {
			_, err := b.Plan()
			var errs topology.Errors
			if c.ok != (err == nil) || !c.ok && (!errors.As(err, &errs) || len(errs) != 1 || errs[0].Kind != topology.BadValue || errs[0].Line == 0) {
				t.Errorf("%s of %v: %v", what, c.rate, err)
			}
		}
	}
}
