package gateway

import (
	"runtime"
	"testing"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
)

// told keeps what it is told.
type told []ipsec.Expiry

func (t *told) Add(x ipsec.Expiry) { *t = append(*t, x) }

// Whoever is told of a limit reads the counters, and must not find them below it.
func TestCountersAreThereWhenALimitIsTold(t *testing.T) {
	t.Parallel()
	tell := new(told)
	sa := ipsec.SA{SPI: 256, Soft: ipsec.Limits{Packets: 3}, Hard: ipsec.Limits{Blocks: 8}}
	o, err := newOutbound(&tunnel{policy: ipsec.Policy{Tunnel: "t"}}, &sa)
	if err != nil {
		t.Fatal(err)
	}
	const n = 20 // two blocks
	buf := make([]byte, esp.Size(n))
	for range 5 {
		before := len(*tell)
		o.seal(buf, n, esp.IPv4, tell)
		if len(*tell) == before {
			continue
		}
		// The loop publishes for itself only when it has sealed all that came together.
		switch c := o.counters(); (*tell)[before].Trigger {
		case ipsec.ByPackets:
			if c.Packets != 3 || c.Seq != 3 {
				t.Errorf("told of the 3rd packet with %+v", c)
			}
		case ipsec.ByBlocks:
			if c.Blocks != 8 {
				t.Errorf("told of the 8th block with %+v", c)
			}
		}
	}
	if len(*tell) != 2 {
		t.Errorf("told %+v", *tell)
	}
}

// An SA's counters are final when it has been replaced, also where the packet loop was sealing with it just then.
func TestReplacingWaitsForWhatIsBeingSealed(t *testing.T) {
	t.Parallel()
	var tn tunnel
	sas := [2]*outboundSA{}
	for i := range sas {
		var err error
		if sas[i], err = newOutbound(&tn, &ipsec.SA{SPI: uint32(256 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	tn.replace(sas[0])
	sa := tn.acquire()
	if sa != sas[0] {
		t.Fatal("not the SA that was set")
	}
	final := make(chan ipsec.Counters)
	go func() {
		tn.replace(sas[1])
		final <- sas[0].counters()
	}()
	for tn.out.Load() != sas[1] {
		runtime.Gosched()
	}
	buf := make([]byte, esp.Size(20))
	for range 1000 {
		sa.seal(buf, 20, esp.IPv4, new(told))
	}
	sa.publish()
	sa.release()
	if got := (<-final).Packets; got != 1000 {
		t.Errorf("%d packets were counted when it had been replaced, and 1000 sealed", got)
	}
	if sa := tn.acquire(); sa != sas[1] {
		t.Error("the SA before is used on")
	} else {
		sa.release()
	}
	tn.replace(nil)
	if tn.acquire() != nil {
		t.Error("an SA is left")
	}
}
