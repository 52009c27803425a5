package links

import (
	"errors"
	"testing"
	"time"

	"pqlab/links/medium"
	"pqlab/topology"
)

// A change of a wire ends what is stuck in it, at the rate that was; one that is refused leaves it as it is.
func TestChangeWhileSending(t *testing.T) {
	for name, was := range map[string]topology.Shape{
		"a low rate": {Rate: 1},
		"an outage in a trace": {RateTrace: []topology.RateStep{
			{Length: time.Nanosecond, Rate: topology.Mbit}, {Length: time.Hour},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			made, a, b := pairOf(t, shaped(was), need(t, "wire"))
			p := newProber(t, made, a, b, 100)
			p.pace(1, 0)
			p.keepUp(0)
			ends := func() (at time.Duration) {
				d := made.body.(*driven)
				if err := d.wire.Do(func(time.Duration) { at, _ = d.model.(line).Next() }); err != nil {
					t.Fatal(err)
				}
				return at
			}
			before := ends()
			mine := errors.New("mine")
			if err := made.Set(func([2]topology.Shape) (all [2]topology.Shape, _ error) { return all, mine }); !errors.Is(err, mine) {
				t.Fatal(err)
			}
			if after := ends(); after != before || before < time.Minute {
				t.Errorf("it was to leave at %v, after a change that was refused at %v", before, after)
			}
			if err := made.Set(func([2]topology.Shape) (all [2]topology.Shape, _ error) { return all, nil }); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(20 * time.Second); made.State().Wire[0].Fates[medium.Delivered] < 1; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("a link without a rate still sends what it began at one")
				}
			}
		})
	}
}
