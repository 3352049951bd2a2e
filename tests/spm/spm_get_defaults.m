function varargout = spm_get_defaults (name, varargin)
  if (! ischar (name))
    error ('spm_get_defaults: a name is a string');
  end
  varargout = {[]};
end
