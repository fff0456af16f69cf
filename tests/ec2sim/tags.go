package ec2sim

import (
	"maps"
	"strings"
)

type tag struct {
	Key, Value string
	hasValue   bool
}

// addTags returns a copy of have with more added, or why EC2 refuses them.
func addTags(have map[string]string, more []tag, limit int) (map[string]string, error) {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for _, t := range more {
		switch {
		case t.Key == "":
			return nil, apiErr("InvalidParameterValue", "Tag key cannot be empty.")
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:"):
			return nil, apiErr("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		case len([]rune(t.Key)) > 127:
			return nil, apiErr("InvalidParameterValue", "Tag key exceeds the maximum length of 127 characters.")
		case len([]rune(t.Value)) > 255:
			return nil, apiErr("InvalidParameterValue", "Tag value exceeds the maximum length of 255 characters.")
		}
		out[t.Key] = t.Value
	}
	if len(out) > limit {
		return nil, apiErr("TagLimitExceeded", "More than %d tags specified.", limit)
	}
	return out, nil
}

// tagged is one resource's tags, and how to put changed ones back.
type tagged struct {
	tags map[string]string
	set  func(map[string]string)
}

func (s *Server) taggedResources(ids []string) ([]tagged, error) {
	var out []tagged
	for _, id := range ids {
		t, err := s.taggedResource(id)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func (s *Server) taggedResource(id string) (tagged, error) {
	switch kind, _, _ := strings.Cut(id, "-"); kind {
	case "vol":
		v, ok := s.st.Volumes[id]
		if !ok {
			return tagged{}, errVolumeNotFound(id)
		}
		return tagged{v.Tags, func(m map[string]string) { v.Tags = m; s.touchVolume(v) }}, nil
	case "snap":
		sn, ok := s.st.Snapshots[id]
		if !ok {
			return tagged{}, errSnapshotNotFound(id)
		}
		return tagged{sn.Tags, func(m map[string]string) { sn.Tags = m; s.touchSnapshot(sn) }}, nil
	case "i":
		i, ok := s.st.Instances[id]
		if !ok {
			return tagged{}, errInstanceNotFound(id)
		}
		return tagged{i.Tags, func(m map[string]string) { i.Tags = m; s.touchInstance(i) }}, nil
	}
	return tagged{}, apiErr("InvalidID", "The ID '%s' is not valid", id)
}

type okXML struct {
	meta
	Return bool `xml:"return"`
}

func (s *Server) createTags(r *request) (response, error) {
	ids, tags := r.list("ResourceId"), r.tags("Tag")
	switch {
	case len(ids) == 0:
		return nil, errMissing("resourceIdSet")
	case len(tags) == 0:
		return nil, errMissing("tagSet")
	}
	return &okXML{Return: true}, s.update(func() error {
		res, err := s.taggedResources(ids)
		if err != nil {
			return err
		}
		var after []map[string]string
		for _, t := range res {
			m, err := addTags(t.tags, tags, s.opt.Limits.TagsPerResource)
			if err != nil {
				return err
			}
			after = append(after, m)
		}
		for i, t := range res {
			t.set(after[i])
		}
		return nil
	})
}

func (s *Server) deleteTags(r *request) (response, error) {
	ids, tags := r.list("ResourceId"), r.tags("Tag")
	if len(ids) == 0 {
		return nil, errMissing("resourceIdSet")
	}
	return &okXML{Return: true}, s.update(func() error {
		res, err := s.taggedResources(ids)
		if err != nil {
			return err
		}
		for _, t := range res {
			t.set(withoutTags(t.tags, tags))
		}
		return nil
	})
}

// withoutTags removes the given keys; with a value only where it is the
// present one; all tags when none is named.
func withoutTags(have map[string]string, gone []tag) map[string]string {
	if len(gone) == 0 {
		return map[string]string{}
	}
	out := maps.Clone(have)
	for _, t := range gone {
		if !t.hasValue || out[t.Key] == t.Value {
			delete(out, t.Key)
		}
	}
	return out
}

type tagDescriptionXML struct {
	ResourceID   string `xml:"resourceId"`
	ResourceType string `xml:"resourceType"`
	Key          string `xml:"key"`
	Value        string `xml:"value"`
}

func (s *Server) describeTags(r *request) (response, error) {
	pg, err := r.page(pageLimits{min: 5, max: 1000})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	t := s.visible()
	var all []tagDescriptionXML
	add := func(id, typ string, tags map[string]string) {
		for _, k := range sortedKeys(tags) {
			all = append(all, tagDescriptionXML{id, typ, k, tags[k]})
		}
	}
	for _, v := range s.history.volumes.asOf(t) {
		add(v.ID, "volume", v.Tags)
	}
	for _, sn := range s.history.snapshots.asOf(t) {
		add(sn.ID, "snapshot", sn.Tags)
	}
	for _, i := range s.history.instances.asOf(t) {
		add(i.ID, "instance", i.Tags)
	}
	s.mu.Unlock()
	all, err = filtered(r, all, func(d tagDescriptionXML, name string) ([]string, bool) {
		if key, ok := strings.CutPrefix(name, "tag:"); ok {
			if key != d.Key {
				return nil, true
			}
			return []string{d.Value}, true
		}
		switch name {
		case "key":
			return []string{d.Key}, true
		case "value":
			return []string{d.Value}, true
		case "resource-id":
			return []string{d.ResourceID}, true
		case "resource-type":
			return []string{d.ResourceType}, true
		}
		return nil, false
	})
	if err != nil {
		return nil, err
	}
	out := &describeTagsXML{}
	out.Tags, out.NextToken = paged(pg, all, func(d tagDescriptionXML) string {
		return d.ResourceType + "/" + d.ResourceID + "/" + d.Key
	})
	return out, nil
}

type describeTagsXML struct {
	meta
	Tags      []tagDescriptionXML `xml:"tagSet>item"`
	NextToken string              `xml:"nextToken,omitempty"`
}
