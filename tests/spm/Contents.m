% A stand-in for SPM: checks a batch as SPM would read it, and writes what SPM would write
% Version 7771 (SPM12) 13-Jan-20
