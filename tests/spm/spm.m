function varargout = spm (action, varargin)
  % The few questions that nipype's scripts ask of SPM.
  switch lower (action)
    case 'dir'
      varargout = {fileparts(mfilename ('fullpath'))};
    case 'ver'
      varargout = {'SPM12', '7771'};
    case 'defaults'
      if (! strcmpi (varargin{1}, 'fmri'))
        error ('spm: unknown modality %s', varargin{1});
      end
    otherwise
      error ('spm: unknown action %s', action);
  end
end
