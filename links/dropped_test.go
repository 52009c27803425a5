package links

import (
	"net"
	"testing"
	"time"

	"pqlab/topology"
)

// What finds no room in a link's queue is counted, and a link that drops nothing has dropped nothing.
func TestDropped(t *testing.T) {
	for _, name := range []string{"tbf", "wire"} {
		t.Run(name, func(t *testing.T) {
			made, a, _ := pairOf(t, shaped(topology.Shape{Rate: 100e3}), need(t, name))
			if got := made.Dropped(); got.Sum() > 0 {
				t.Errorf("at first: %+v", got)
			}
			const sent, least = 300, 200 // of 1000 bytes; the queue holds fewer than 10
			err := a.Do(func() error {
				c, err := net.Dial("udp", "10.0.0.2:9")
				if err != nil {
					return err
				}
				defer c.Close()
				for range sent {
					_, _ = c.Write(make([]byte, 1000)) // a queue that is full may be told of
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(2 * time.Minute); made.Dropped().Full < least && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			if got := made.Dropped(); got.Full < least || got.Full > sent+10 || got.Sum() != got.Full {
				t.Errorf("%+v of %d", got, sent)
			}
		})
	}
}
