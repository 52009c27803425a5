package strongswan

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
	"pqlab/ipsec/strongswan/vici"
)

// What both ends propose, and nothing else: the algorithms of pqlab's own tunnels where those are classical.
const (
	ikeProposal = "aes256gcm16-prfsha256-x25519"
	espProposal = "aes256gcm16-x25519-esn"
)

// Suite names what authenticates and what agrees on keys.
const Suite = "ed25519+x25519"

// interfaceID joins the interface with charon's policies and SAs.
const interfaceID = 4500

// connection is the tunnel's as swanctl.conf has it, of an end with the key own (public) and a peer with the key peer,
// SubjectPublicKeyInfo in DER.
func connection(t *Tunnel, life lifetimes, own, peer []byte) *vici.Message {
	m := new(vici.Message)
	c := m.Add(t.Policy.Tunnel)
	c.Set("version", "2")
	c.SetList("local_addrs", t.Policy.Src.String())
	c.SetList("remote_addrs", t.Policy.Dst.String())
	c.SetList("proposals", ikeProposal)
	c.Set("mobike", "no")
	c.Set("encap", yes(t.Policy.Encapsulation == ipsec.UDP)) // else only a NAT would bring ESP in UDP
	c.Set("dpd_delay", "0s")
	c.Set("rekey_time", "0s") // of the IKE_SA: a lab is not that old
	c.Set("reauth_time", "0s")
	c.Set("keyingtries", "1")
	c.Set("unique", "never") // two nodes may have several tunnels
	for _, side := range []struct {
		name string
		key  []byte
	}{{"local", own}, {"remote", peer}} {
		s := c.Add(side.name)
		s.Set("auth", "pubkey")
		s.SetList("pubkeys", string(side.key))
	}
	child := c.Add("children").Add(t.Policy.Tunnel)
	child.Set("mode", "tunnel")
	child.SetList("local_ts", texts(t.Policy.Local)...)
	child.SetList("remote_ts", texts(t.Policy.Remote)...)
	child.SetList("esp_proposals", espProposal)
	child.Set("rekey_time", seconds(life.rekeyTime))
	child.Set("life_time", seconds(life.lifeTime))
	child.Set("rand_time", "0s")
	child.Set("rekey_bytes", amount(life.rekey.Bytes))
	child.Set("life_bytes", amount(life.life.Bytes))
	child.Set("rand_bytes", "0")
	child.Set("rekey_packets", amount(life.rekey.Packets))
	child.Set("life_packets", amount(life.life.Packets))
	child.Set("rand_packets", "0")
	child.Set("replay_window", strconv.Itoa(replayWindow))
	child.Set("if_id_in", strconv.Itoa(interfaceID))
	child.Set("if_id_out", strconv.Itoa(interfaceID))
	action := "none"
	if t.OnTraffic {
		action = "trap"
	}
	child.Set("start_action", action)
	child.Set("close_action", "none")
	child.Set("dpd_action", "clear")
	return m
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func texts(prefixes []netip.Prefix) (all []string) {
	for _, p := range prefixes {
		all = append(all, p.String())
	}
	return all
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", d/time.Second) }

// amount of bytes or packets; 0 is no limit.
func amount(n uint64) string {
	if n == xfrmnl.None {
		return "0"
	}
	return strconv.FormatUint(n, 10)
}
