package clock

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestManualFiresInOrder(t *testing.T) {
	t.Parallel()
	m := NewManual(start)
	type call struct {
		name string
		at   time.Duration
	}
	var got []call
	note := func(name string) func() { return func() { got = append(got, call{name, m.Now().Sub(start)}) } }
	m.AfterFunc(3*time.Second, note("c"))
	m.AfterFunc(time.Second, note("a"))
	m.AfterFunc(time.Second, note("a2"))
	m.AfterFunc(2*time.Second, func() {
		note("b")()
		m.AfterFunc(0, note("b now"))
		m.AfterFunc(500*time.Millisecond, note("b later"))
		m.AfterFunc(time.Hour, note("never"))
	})
	m.AfterFunc(-time.Second, note("past"))
	stopped := m.AfterFunc(time.Second, note("stopped"))
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop must report true once")
	}

	m.Advance(time.Second - 1)
	if want := []call{{"past", 0}}; !slices.Equal(got, want) {
		t.Fatalf("just before the first: got %v, want %v", got, want)
	}
	m.Advance(1)
	if want := []call{{"past", 0}, {"a", time.Second}, {"a2", time.Second}}; !slices.Equal(got, want) {
		t.Fatalf("at the first: got %v, want %v", got, want)
	}
	got = nil
	m.Advance(10 * time.Second)
	want := []call{{"b", 2 * time.Second}, {"b now", 2 * time.Second}, {"b later", 2500 * time.Millisecond}, {"c", 3 * time.Second}}
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if now := m.Now().Sub(start); now != 11*time.Second {
		t.Errorf("clock stands at %v, want 11s", now)
	}
}

func TestManualStopInsideACall(t *testing.T) {
	t.Parallel()
	var m Manual // the zero value works
	var second Timer
	fired := false
	m.AfterFunc(time.Second, func() {
		if !second.Stop() {
			t.Error("a timer that is due but not called yet can be stopped")
		}
	})
	second = m.AfterFunc(time.Second, func() { fired = true })
	m.Advance(time.Minute)
	if fired {
		t.Error("a stopped timer was called")
	}
}

func TestManualConcurrentUse(t *testing.T) {
	t.Parallel()
	var m Manual
	var wg sync.WaitGroup
	var mu sync.Mutex
	calls := 0
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				m.AfterFunc(time.Duration(i), func() { mu.Lock(); calls++; mu.Unlock() })
				m.Advance(1)
			}
		})
	}
	wg.Wait()
	m.Advance(time.Second)
	if calls != 800 {
		t.Errorf("%d calls, want 800", calls)
	}
}

func TestReal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c Clock = Real{}
		begin := c.Now()
		fired := make(chan time.Duration, 1)
		c.AfterFunc(time.Minute, func() { fired <- c.Now().Sub(begin) })
		if got := <-fired; got != time.Minute {
			t.Errorf("fired after %v", got)
		}
		if c.AfterFunc(time.Minute, func() { t.Error("stopped, yet called") }).Stop() != true {
			t.Error("Stop must prevent the call")
		}
		time.Sleep(time.Hour)
	})
}
